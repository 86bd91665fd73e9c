"""Bounded admission, and the threads on which the synchronous core works: nothing of it runs on the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

from prometheus_client import Gauge

from signer.api.exchange import Exchange
from signer.deadlines import Deadline
from signer.errors import DeadlineExceededError, OverloadedError

# Requests beyond it wait on the event loop, where it is still noticed that their client has gone.
THREADS: Final = 32

Result = TypeVar("Result")


class Admission:
    """Lets a bounded number of requests in, and gives each a thread as soon as one is free.

    Everything but the work itself happens on the event loop, so the counters need no lock.
    """

    def __init__(self, max_in_flight: int, gauge: Gauge) -> None:
        threads = min(max_in_flight, THREADS)
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._gauge = gauge
        self._idle_threads = asyncio.Semaphore(threads)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="http-work")

    def require_room(self) -> None:
        """Raise `OverloadedError` if there is no place now."""
        if self._in_flight >= self._max_in_flight:
            msg = f"{self._max_in_flight} signing requests are in flight already"
            raise OverloadedError(msg)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one of the places for the block; raises `OverloadedError` at once if there is none."""
        self.require_room()
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def run(self, work: Callable[[bytes, Exchange], Result], body: bytes, exchange: Exchange) -> Result:
        """Do `work` on a thread of its own and give its result.

        It does not begin if no thread came free before the deadline (`DeadlineExceededError`), nor if by then nobody
        waits for the answer (`ClientGoneError`).
        """
        async with self._idle_thread(exchange.deadline):
            exchange.require_client()
            return await asyncio.get_running_loop().run_in_executor(self._executor, _do, work, body, exchange)

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def _idle_thread(self, deadline: Deadline) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await self._idle_threads.acquire()
        except TimeoutError:
            msg = "no thread came free before the deadline"
            raise DeadlineExceededError(msg) from None
        try:
            yield
        finally:
            self._idle_threads.release()

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._gauge.set(self._in_flight)


def _do(work: Callable[[bytes, Exchange], Result], body: bytes, exchange: Exchange) -> Result:
    exchange.begin_work()
    return work(body, exchange)
