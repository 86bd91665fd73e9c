"""Keeps the service running as an orchestrator would: a process that ends is replaced at once."""

import threading
import time
from dataclasses import dataclass
from typing import Final

from signer.demo.processes import Program
from signer.demo.stack import Stack

_FOREVER_S: Final = 86_400.0
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class End:
    """The end of one process."""

    at_s: float
    """Unix time."""
    status: int
    """Negative: the signal that ended it."""


class Supervisor:
    """Runs `signer serve` from its first readiness until `close`."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._program: Program = stack.start()
        self.ends: list[End] = []
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """The process that runs now, or ended last."""
        return self._program.pid

    def restart(self) -> None:
        """Do what an operator does: ask the process to end; the next one comes by itself."""
        ended = len(self.ends)
        self._program.terminate()
        while len(self.ends) == ended:
            time.sleep(_PAUSE_S / 10)

    def close(self) -> int:
        """End the process for good, and give its status."""
        with self._lock:
            self._closed = True
        status = self._program.terminate()
        self._thread.join()
        return status

    def _run(self) -> None:
        while not self._closed:
            status = self._program.wait(_FOREVER_S)
            self.ends.append(End(time.time(), status))
            # One that cannot start must not be started as fast as this machine can.
            time.sleep(_PAUSE_S)
            with self._lock:
                if not self._closed:
                    self._program = self._stack.launch()
