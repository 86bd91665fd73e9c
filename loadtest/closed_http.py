"""A closed loop over HTTP: so many connections, each asks again as soon as it was answered.

It speaks just as much HTTP as that takes, for whatever the load uses of the CPU the service does not have. Answers are
verified when the loop is over.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from loadtest.closed import Run
from loadtest.messages import Book, items_body, request_body
from loadtest.proof import NotProvenError, Proof

_END_OF_HEAD: Final = b"\r\n\r\n"
SINGLE_ROUTE: Final = "/v1/sign"
BATCH_ROUTE: Final = "/v1/sign-batch"
_LENGTH: Final = b"content-length: "


class _Loop:
    """What the connections share."""

    def __init__(self, book: Book, proof: Proof, batch: int | None, prefix: str, seconds: float) -> None:
        self.book, self.proof, self.prefix = book, proof, prefix
        self.batch = batch
        self.began_s = time.perf_counter()
        self.until_s = self.began_s + seconds
        self.latencies_ms: list[float] = []
        self.answers: list[tuple[list[str], bytes]] = []

    def next_body(self) -> tuple[list[str], bytes]:
        """Give the names of what is asked next, and the body that asks for it."""
        taken = [self.book.take(self.prefix) for _ in range(self.batch or 1)]
        for name, page in taken:
            self.proof.send(name, page.digest)
        body = items_body(taken) if self.batch is not None else request_body(*taken[0])
        return [name for name, _ in taken], body


class _Connection(asyncio.Protocol):
    def __init__(self, loop: _Loop, host: str) -> None:
        self._loop = loop
        route = SINGLE_ROUTE if loop.batch is None else BATCH_ROUTE
        self._head = f"POST {route} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._names: list[str] = []
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
        self._loop.answers.append((self._names, bytes(body)))
        self._received.clear()
        self._ask()

    def _ask(self) -> None:
        now_s = time.perf_counter()
        if self._transport is None or now_s > self._loop.until_s:
            self.over.set_result(None)
            return
        self._names, body = self._loop.next_body()
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
    """Requests for one transaction each, or for a `batch`, spread over the processes at `urls`."""

    def __init__(self, urls: Sequence[str], connections: int, batch: int | None, book: Book, proof: Proof) -> None:
        """`batch` None: each request is for a single one, on the route for that."""
        self._urls, self._connections, self._book, self._proof = urls, connections, book, proof
        self._batch = batch
        self._unverified: list[tuple[list[str], bytes]] = []

    def run(self, prefix: str, seconds: float) -> Run:
        """Ask for so long; raises `NotProvenError` for any other answer than a signature."""
        loop = _Loop(self._book, self._proof, self._batch, prefix, seconds)
        asyncio.run(_run(self._urls, self._connections, loop))
        self._unverified += loop.answers
        took_s = time.perf_counter() - loop.began_s
        return Run(len(loop.answers) * (self._batch or 1), took_s, loop.latencies_ms)

    def verify(self) -> None:
        """Verify all that came; raises `NotProvenError`."""
        for names, body in self._unverified:
            answers = list(_answers(body))
            if [answer["transaction_id"] for answer in answers] != names:
                msg = f"{names[0]}, or one asked for with it, was answered with the signature of another transaction"
                raise NotProvenError(msg)
            for answer in answers:
                if "signature" not in answer:
                    msg = f"{answer['transaction_id']} was refused: {answer['error']['code']}"
                    raise NotProvenError(msg)
                self._proof.receive(answer["transaction_id"], answer["signature"])
        self._unverified.clear()


def _answers(body: bytes) -> Iterator[dict[str, Any]]:
    answer = json.loads(body)
    yield from answer.get("results", [answer])
