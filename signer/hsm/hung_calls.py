"""C_Sign has no time-out: finds calls that do not come back, and lets go of all that waits for them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from signer.errors import HsmUnavailableError
from signer.hsm.journal import Journal

_LIMITS_TO_GIVE_UP: Final = 3
"""A call that has taken so many times the limit, and bars all mending, is waited for no longer."""


def nobody_waits() -> None:
    """Stand in for what is to be done when a call hangs that no request depends on."""


@dataclass(slots=True, eq=False)
class Watch:
    """A thread in the module, while it is there."""

    began_at_s: float
    """When its last call began, as far as it told."""
    on_hang: Callable[[], None]
    mends: bool
    """Whether nobody else can mend the connection until it comes back."""
    hung: bool = False


class HungCalls:
    """Watches calls; one that takes longer than `limit_s` counts as hung until it comes back, if it ever does.

    Its session is never used again and its thread is not waited for. Threads and sessions that hang can be got rid of
    only with their process, so `end_process` is called: with more than `most` of them at one time, and when the
    connection has to be mended and one that hangs for good bars it.
    """

    def __init__(self, limit_s: float, most: int, end_process: Callable[[], None], journal: Journal) -> None:
        self.limit_s = limit_s
        self._most = most
        self._end_process = end_process
        self._metrics = journal.metrics
        self._logger = journal.logger
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._hung = 0
        self._mine = threading.local()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hsm-watch", daemon=True)
        self._thread.start()

    @property
    def are_many(self) -> bool:
        """Whether no more of them can be borne, or one of them keeps all others from mending the connection."""
        with self._lock:
            return self._hung >= self._most or any(watch.hung and watch.mends for watch in self._watches)

    def begin(self, on_hang: Callable[[], None], *, mends: bool = False) -> Watch:
        """Watch the calls of this thread that follow; `on_hang` is called once if they take too long."""
        watch = self._mine.watch = Watch(time.monotonic(), on_hang, mends)
        with self._lock:
            self._watches.add(watch)
        return watch

    def went_on(self) -> None:
        """Note that this thread's calls came back so far: many that are quick are not one that hangs."""
        watch: Watch | None = getattr(self._mine, "watch", None)
        if watch is not None:
            watch.began_at_s = time.monotonic()

    def end(self, watch: Watch) -> bool:
        """Tell whether what came back had been given up."""
        with self._lock:
            self._watches.discard(watch)
            if watch.hung:
                self._hung -= 1
                self._metrics.hung_calls.set(self._hung)
        return watch.hung

    @contextmanager
    def mending(self, on_hang: Callable[[], None]) -> Iterator[None]:
        """Watch what mends the connection."""
        watch = self.begin(on_hang, mends=True)
        try:
            yield
        finally:
            self.end(watch)

    def let_rebuild(self) -> None:
        """Raise `HsmUnavailableError` while a call hangs: finalising would pull the module from under it."""
        if not self._hung:
            return
        if self._hang_for_good(self._watches_that_hang()):
            self._end("a call that does not come back bars the rebuild")
        msg = "the HSM connection cannot be rebuilt while a call into the module hangs"
        raise HsmUnavailableError(msg)

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - whatever it was: no call would be found to hang ever after
            self._end(f"calls are watched no longer: {error!r}")

    def _watch(self) -> None:
        turn_s, looked_at_s = self.limit_s / 10, time.monotonic()
        while not self._closing.wait(turn_s):
            self._stood_still(time.monotonic() - looked_at_s - turn_s)
            for watch in self._overdue():
                self._logger.error("hsm.call_hangs", limit_s=self.limit_s, hung=self._hung, mends=watch.mends)
                self._metrics.abandoned_calls.inc()
                watch.on_hang()
            if self._hung > self._most:
                self._end("too many calls hang")
            if self._hang_for_good([watch for watch in self._watches_that_hang() if watch.mends]):
                self._end("the call that was to mend the connection does not come back")
            looked_at_s = time.monotonic()

    def _stood_still(self, for_s: float) -> None:
        """Leave out time in which not even this thread ran: the process was stopped, or its machine."""
        with self._lock:
            for watch in self._watches:
                watch.began_at_s += for_s

    def _overdue(self) -> list[Watch]:
        before_s = time.monotonic() - self.limit_s
        with self._lock:
            overdue = [watch for watch in self._watches if not watch.hung and watch.began_at_s < before_s]
            for watch in overdue:
                watch.hung = True
            self._hung += len(overdue)
            self._metrics.hung_calls.set(self._hung)
        return overdue

    def _watches_that_hang(self) -> list[Watch]:
        with self._lock:
            return [watch for watch in self._watches if watch.hung]

    def _hang_for_good(self, watches: list[Watch]) -> bool:
        return any(watch.began_at_s < time.monotonic() - _LIMITS_TO_GIVE_UP * self.limit_s for watch in watches)

    def _end(self, why: str) -> None:
        self._logger.critical("hsm.calls_hang", reason=why, hung=self._hung, most=self._most)
        self._end_process()
