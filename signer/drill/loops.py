"""Threads of the drill that do one thing again and again; what went wrong in one is raised where it is stopped."""

import threading
import time
from collections.abc import Callable


class Loop:
    """Calls `turn` until it is stopped."""

    def __init__(self, name: str, turn: Callable[[], object]) -> None:
        self.stopping = threading.Event()
        self._turn = turn
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it after its turn; raises what ended it before."""
        self.stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Raise what ended it."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._turn()
        except BaseException as error:  # noqa: BLE001 - raised again where somebody can see it
            self._error = error


class Steady(Loop):
    """Calls `turn` with 0, 1, 2 ... at a steady rate, however long the calls take: an open loop."""

    def __init__(self, name: str, rate_per_s: float, turn: Callable[[int], object]) -> None:
        self._number = 0
        self._call = turn
        self._interval_s = 1 / rate_per_s
        self._next_s = time.monotonic()
        super().__init__(name, self._once)

    def _once(self) -> None:
        self._call(self._number)
        self._number += 1
        self._next_s += self._interval_s
        self.stopping.wait(max(0.0, self._next_s - time.monotonic()))
