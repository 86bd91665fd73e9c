"""What the service is meant to reach, and whether it does."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from loadtest.bench.extras import MANY, STEADY


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of bench.json and its bound."""

    path: str
    module: str
    figure: str
    bound: float
    at_least: bool

    @property
    def text(self) -> str:
        """Say it in a cell of a table."""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    def met_by(self, value: float) -> bool:
        """Whether the figure is within its bound."""
        return value >= self.bound if self.at_least else value <= self.bound


TARGETS: Final = (
    Target("sqs-500", "softhsm", "ratio", 0.92, at_least=True),
    Target("http-batch-100", "softhsm", "ratio", 0.90, at_least=True),
    Target("http-single", "softhsm", "ratio", 0.65, at_least=True),
    Target("http-single x2", "softhsm", "ratio", 0.75, at_least=True),
    Target("sqs-500", "shim-cloudhsm", "ratio", 0.95, at_least=True),
    Target("sqs-500", "shim-replay", "service_cpu_us", 60, at_least=False),
    Target("http-single", "shim-replay", "service_cpu_us", 250, at_least=False),
    Target(STEADY, "shim-cloudhsm", "p50_beyond_ms", 3, at_least=False),
    Target(STEADY, "shim-cloudhsm", "p99_beyond_ms", 10, at_least=False),
    Target("start", "softhsm", "start_cpu_s", 2, at_least=False),
    Target(MANY, "shim-replay", "rss_mb", 150, at_least=False),
    Target(MANY, "shim-replay", "growth_mb", 5, at_least=False),
)


def verdicts(rows: Iterable[Mapping[str, str | float]]) -> list[tuple[Target, float | None]]:
    """Give each target with the figure that was measured for it; None: it was not."""
    found = {(row["path"], row["module"]): row for row in rows}
    return [(target, _figure(found.get((target.path, target.module)), target)) for target in TARGETS]


def _figure(row: Mapping[str, str | float] | None, target: Target) -> float | None:
    value = None if row is None else row.get(target.figure)
    return None if value is None else float(value)
