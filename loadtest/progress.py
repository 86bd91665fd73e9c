"""Shows a load test while it runs: one line that changes on a terminal, a line every ten seconds elsewhere."""

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status

from loadtest.tally import Tally

_EVERY_S: Final = 10.0


class Progress:
    """Owns the line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = console.status("") if console.is_terminal else None
        self._printed_s = time.monotonic()

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, tally: Tally) -> None:
        """Show how a phase goes."""
        line = describe(tally)
        if self._status is not None:
            self._status.update(line)
        elif time.monotonic() > self._printed_s + _EVERY_S:
            self._printed_s = time.monotonic()
            self._console.print(line)


def describe(tally: Tally) -> str:
    """Say it in one line."""
    figures = tally.figures()
    return (
        f"{tally.phase.name:<10}{tally.phase.rate:g}/s: {figures['transactions']:,} signed, "
        f"{figures['errors']} errors, "
        f"{tally.in_flight * tally.size} under way, p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, "
        f"generator {figures['generator_lag_p99_ms']:.1f} ms late"
    )
