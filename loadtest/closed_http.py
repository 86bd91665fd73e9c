"""A closed loop over HTTP: so many connections, each asks again as soon as it was answered.

It speaks just as much HTTP as that takes, for whatever the load uses of the CPU the service does not have. Answers are
verified when the loop is over.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from loadtest.closed import Run
from loadtest.messages import Book, request_body
from loadtest.proof import NotProvenError, Proof

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "


class _Loop:
    """What the connections share."""

    def __init__(self, book: Book, proof: Proof, prefix: str, seconds: float) -> None:
        self.book, self.proof, self.prefix = book, proof, prefix
        self.began_s = time.perf_counter()
        self.until_s = self.began_s + seconds
        self.latencies_ms: list[float] = []
        self.answers: list[tuple[str, bytes]] = []


class _Connection(asyncio.Protocol):
    def __init__(self, loop: _Loop, host: str) -> None:
        self._loop = loop
        self._head = f"POST /v1/sign HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._name = ""
        self._asked_s = 0.0
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or NotProvenError("the service closed a connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_END_OF_HEAD)
        if not found:
            return
        start = head.lower().index(_LENGTH) + len(_LENGTH)
        if len(body) < int(head[start:].partition(b"\r")[0]):
            return
        if b" 200 " not in head[:16]:
            self.over.set_exception(NotProvenError(bytes(self._received).decode()))
            return
        self._loop.latencies_ms.append((time.perf_counter() - self._asked_s) * 1000)
        self._loop.answers.append((self._name, bytes(body)))
        self._received.clear()
        self._ask()

    def _ask(self) -> None:
        now_s = time.perf_counter()
        if self._transport is None or now_s > self._loop.until_s:
            self.over.set_result(None)
            return
        self._name, page = self._loop.book.take(self._loop.prefix)
        self._loop.proof.send(self._name, page.digest)
        body = request_body(self._name, page)
        self._asked_s = now_s
        self._transport.write(f"{self._head}{len(body)}\r\n\r\n".encode() + body)


async def _run(urls: Sequence[str], connections: int, loop: _Loop) -> None:
    opened = [await _connect(urls[number % len(urls)], loop) for number in range(connections)]
    await asyncio.gather(*(connection.over for _, connection in opened))
    for transport, _ in opened:
        transport.close()


async def _connect(url: str, loop: _Loop) -> tuple[asyncio.Transport, _Connection]:
    address = urlsplit(url)
    return await asyncio.get_running_loop().create_connection(
        partial(_Connection, loop, address.netloc), address.hostname or "", address.port or 0
    )


class HttpLoad:
    """Requests for one transaction each, spread over the processes at `urls`."""

    batch = 1

    def __init__(self, urls: Sequence[str], connections: int, book: Book, proof: Proof) -> None:
        self._urls, self._connections, self._book, self._proof = urls, connections, book, proof
        self._unverified: list[tuple[str, bytes]] = []

    def run(self, prefix: str, seconds: float) -> Run:
        """Ask for so long; raises `NotProvenError` for any other answer than a signature."""
        loop = _Loop(self._book, self._proof, prefix, seconds)
        asyncio.run(_run(self._urls, self._connections, loop))
        self._unverified += loop.answers
        took_s = time.perf_counter() - loop.began_s
        return Run(len(loop.answers), took_s, loop.latencies_ms)

    def verify(self) -> None:
        """Verify all that came; raises `NotProvenError`."""
        for name, body in self._unverified:
            answer = json.loads(body)
            if answer["transaction_id"] != name:
                msg = f"{name} was answered with the signature of another transaction"
                raise NotProvenError(msg)
            self._proof.receive(name, answer["signature"])
        self._unverified.clear()
