"""Ends a measurement early: no process is left behind; a load test proves and reports what was sent until then."""

import asyncio
import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any


class Stop:
    """Asked for by the first signal; a second one ends the program at once, by `KeyboardInterrupt`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """What asked for it; until then None."""
        self._then: Callable[[], object] = lambda: None

    @contextmanager
    def at_signals(self) -> Iterator[None]:
        """Take the signals while the block runs; in the main thread alone."""
        before: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    @contextmanager
    def cancels(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Cancel the task as soon as it is asked for, or now if it was."""
        loop = asyncio.get_running_loop()
        self._then = lambda: loop.call_soon_threadsafe(task.cancel)
        if self.signal is not None:
            task.cancel()
        try:
            yield
        finally:
            self._then = lambda: None

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self._then()


@contextmanager
def out_of_ctrl_c() -> Iterator[None]:
    """Start programs in this block that Ctrl-C does not end: a terminal sends it to all of the group.

    A blocked signal stays blocked in what is started (POSIX, exec), whatever that does with it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def clean_up_at_sigterm() -> None:
    """Let SIGTERM end the program as an exception does, so that what it started is ended; in the main thread alone."""
    atexit.register(_kill_children)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _kill_children() -> None:
    # One that was just being started when the exception came is known to nobody else.
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The fields after the name, which may hold anything (proc_pid_stat(5)): state, parent.
            parent = (process / "stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[1]
            if int(parent) == os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
