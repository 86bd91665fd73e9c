"""C_Sign has no time-out: finds calls that do not come back, and lets go of all that waits for them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from signer.hsm.journal import Journal


@dataclass(slots=True, eq=False)
class Watch:
    """One call into the module, while it lasts."""

    began_at_s: float
    on_hang: Callable[[], None]
    hung: bool = False


class HungCalls:
    """Watches calls; one that takes longer than `limit_s` counts as hung until it comes back, if it ever does.

    Its session is never used again and its thread is not waited for. With more than `most` of them at one time
    `end_process` is called: threads and sessions that hang can be got rid of in no other way.
    """

    def __init__(self, limit_s: float, most: int, end_process: Callable[[], None], journal: Journal) -> None:
        self._limit_s = limit_s
        self._most = most
        self._end_process = end_process
        self._metrics = journal.metrics
        self._logger = journal.logger
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._hung = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hsm-watch", daemon=True)
        self._thread.start()

    @property
    def any(self) -> bool:
        """Whether a call hangs at this moment."""
        return self._hung > 0

    def begin(self, on_hang: Callable[[], None]) -> Watch:
        """Watch the call that follows; `on_hang` is called once if it takes too long."""
        watch = Watch(time.monotonic(), on_hang)
        with self._lock:
            self._watches.add(watch)
        return watch

    def end(self, watch: Watch) -> bool:
        """Tell whether the call that came back had been given up."""
        with self._lock:
            self._watches.discard(watch)
            if watch.hung:
                self._hung -= 1
                self._metrics.hung_calls.set(self._hung)
        return watch.hung

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._limit_s / 10):
            for watch in self._overdue():
                self._logger.error("hsm.call_hangs", limit_s=self._limit_s, hung=self._hung)
                self._metrics.abandoned_calls.inc()
                watch.on_hang()
            if self._hung > self._most:
                self._logger.critical("hsm.too_many_calls_hang", hung=self._hung, most=self._most)
                self._end_process()

    def _overdue(self) -> list[Watch]:
        before_s = time.monotonic() - self._limit_s
        with self._lock:
            overdue = [watch for watch in self._watches if not watch.hung and watch.began_at_s < before_s]
            for watch in overdue:
                watch.hung = True
            self._hung += len(overdue)
            self._metrics.hung_calls.set(self._hung)
        return overdue
