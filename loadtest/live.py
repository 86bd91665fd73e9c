"""Shows a running load test: one line a second on a terminal, one every ten seconds elsewhere."""

import time
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.tally import Tally

_SELDOM_S: Final = 10.0


class Screen:
    """A table of the phases so far, to be kept current; on standard error, for reports go to standard output."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False)
        self._tallies: list[Tally] = []
        self._said_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, tally: Tally) -> None:
        """Show how it stands."""
        if tally not in self._tallies:
            self._tallies.append(tally)
            self._said_s = 0.0
        if self._console.is_terminal:
            self._live.update(_table(self._tallies), refresh=True)
        elif time.monotonic() > self._said_s + _SELDOM_S:
            self._said_s = time.monotonic()
            self._console.print("  ".join(_row(tally)), highlight=False, soft_wrap=True)


def _table(tallies: list[Tally]) -> Table:
    table = Table(
        "phase", "s", "transactions", "rate", "in flight", "errors", "p50", "p99", "max", "late p99", box=None
    )
    for tally in tallies:
        table.add_row(*_row(tally, units=False))
    return table


def _row(tally: Tally, *, units: bool = True) -> list[str]:
    figures = tally.figures()
    ran_s = min(tally.phase.seconds, time.perf_counter() - tally.began_s)
    cells = {
        "": tally.phase.name,
        "s": f"{ran_s:.0f}/{tally.phase.seconds:.0f}",
        "signed": f"{figures['transactions']:,}",
        "asked/s": f"{tally.due * tally.size / max(ran_s, 1e-3):.0f}",
        "in flight": f"{tally.in_flight * tally.size}",
        "errors": f"{figures['errors']}",
        "ms p50": f"{figures['p50_ms']:.1f}",
        "ms p99": f"{figures['p99_ms']:.1f}",
        "ms max": f"{figures['max_ms']:.1f}",
        "ms late p99": f"{figures['generator_lag_p99_ms']:.1f}",
    }
    return [f"{value} {name}".strip() if units else value for name, value in cells.items()]
