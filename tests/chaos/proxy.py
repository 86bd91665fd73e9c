"""A proxy between one service process and AWS that lets single calls go wrong: it knows which operation each one is.

    proxy.next("SendMessageBatch", faults.answer_lost)
    proxy.next("DeleteMessageBatch", faults.slow(2.0)).wait()
    with proxy.refusing(): ...

It listens on loopback at `url`, which never changes; a fault that is put in meets the next call of its operation.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from tests.chaos.wire import Message, read_answer, read_request

Result = TypeVar("Result")

_PATIENCE_S: Final = 30.0
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_BUFFER_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Exchange:
    """One request of the service, and what becomes of it; a fault decides."""

    request: Message
    at_s: float
    """Unix time, as all times here."""
    _upstream: "Upstream"
    _writer: asyncio.StreamWriter
    _reader: asyncio.StreamReader
    passed_on: bool = False
    """Whether AWS was asked to do it."""
    answered_with: Message | None = None

    @property
    def operation(self) -> str:
        """What it asks for."""
        return self.request.operation

    async def pass_on(self) -> Message:
        """Let AWS do it, and give its answer."""
        self.passed_on = True
        return await self._upstream.ask(self.request)

    async def ask(self, operation: str, parameters: dict[str, Any]) -> Message:
        """Ask the same AWS service for something else."""
        return await self._upstream.ask(self.request.instead(operation, parameters))

    async def answer(self, answer: Message) -> None:
        """Answer the service."""
        self.answered_with = answer
        self._writer.write(answer.encode())
        await self._writer.drain()

    def reset(self) -> None:
        """Break the connection off, with RST."""
        reset(self._writer)

    async def client_gone(self, longest_s: float) -> None:
        """Wait until the service gives up, or so long."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(self._reader.read(1), longest_s)


Fault = Callable[[Exchange], Awaitable[None]]


async def nothing(exchange: Exchange) -> None:
    """Let a call pass: what happens to every call that meets no fault."""
    await exchange.answer(await exchange.pass_on())


@dataclass(slots=True)
class Strike:
    """A fault that waits for its call."""

    operation: str
    fault: Fault
    once: bool = True
    _met: threading.Event = field(default_factory=threading.Event)

    def meet(self) -> None:
        """Note that a call has come."""
        self._met.set()

    def wait(self, timeout_s: float = _PATIENCE_S) -> bool:
        """Wait until a call has met it; False if none came."""
        return self._met.wait(timeout_s)


class Upstream:
    """AWS; each call has a connection of its own."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = str(place.hostname), int(place.port or 80)

    async def ask(self, request: Message) -> Message:
        """Give the answer."""
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=_BUFFER_BYTES)
        try:
            writer.write(request.encode())
            return await read_answer(reader, request)
        finally:
            writer.close()


class Loop:
    """The thread on which proxies live; closed after them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_S)

    def close(self) -> None:
        """Cancel what is under way."""
        self.run(self._cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Proxy:
    """See above."""

    def __init__(self, loop: Loop, upstream_url: str) -> None:
        self._loop = loop
        self._upstream = Upstream(upstream_url)
        listening = socket.create_server(("127.0.0.1", 0))
        self._place: tuple[str, int] = listening.getsockname()
        self.url = f"http://127.0.0.1:{self._place[1]}"
        self.exchanges: list[Exchange] = []
        """Every call that came, in order; whoever wants them kept says so."""
        self.keeps = False
        self._strikes: list[Strike] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._server = loop.run(self._listen(listening))

    def next(self, operation: str, fault: Fault) -> Strike:
        """Let `fault` meet the next call of `operation`."""
        strike = Strike(operation, fault)
        self._strikes.append(strike)
        return strike

    def every(self, operation: str, fault: Fault) -> Strike:
        """Let `fault` meet every call of `operation` from now on."""
        strike = Strike(operation, fault, once=False)
        self._strikes.append(strike)
        return strike

    def withdraw(self, strike: Strike) -> bool:
        """Take a fault back; False if its call has met it."""
        with contextlib.suppress(ValueError):
            self._strikes.remove(strike)
        return not strike.wait(0)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Break all connections off, and refuse new ones for the block."""
        self.close()
        try:
            yield
        finally:
            self._server = self._loop.run(self._listen(socket.create_server(self._place)))

    def close(self) -> None:
        """Break all connections off, and take no more."""
        self._loop.run(self._stop_listening())

    async def _listen(self, at: socket.socket) -> asyncio.Server:
        return await asyncio.start_server(self._serve, sock=at, limit=_BUFFER_BYTES)

    async def _stop_listening(self) -> None:
        self._server.close()
        for writer in list(self._writers):
            reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            # A process that is killed, and one whose connection was reset, look alike from here.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    request = await read_request(reader, writer)
                    await self._meet(Exchange(request, time.time(), self._upstream, writer, reader))
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _meet(self, exchange: Exchange) -> None:
        if self.keeps:
            self.exchanges.append(exchange)
        strike = next((strike for strike in self._strikes if strike.operation == exchange.operation), None)
        if strike is None:
            await nothing(exchange)
            return
        if strike.once:
            self._strikes.remove(strike)
        strike.meet()
        await strike.fault(exchange)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, with RST."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
