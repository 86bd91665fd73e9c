"""What came of each phase: latencies from the intended start, errors, how late the generator was."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from loadtest.schedule import Phase

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_MOST_US: Final = 3_600_000_000
_MICRO: Final = 1e6


def _histogram() -> Any:
    return HdrHistogram(1, _MOST_US, 3)


class Tally:
    """One phase; all times are of `clock`, in seconds."""

    def __init__(self, phase: Phase, size: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.phase = phase
        self.size = size
        self.latency, self.lag = _histogram(), _histogram()
        self.began_s = clock()
        self.due = self.started = self.done = 0
        """Of requests or batches, `size` transactions each."""
        self.errors: Counter[str] = Counter()
        self.seconds: dict[int, Any] = {}
        self.last_s = self.began_s
        self.ran_s = phase.seconds
        self.resources: dict[str, float] = {}
        self._clock = clock

    @property
    def in_flight(self) -> int:
        """How many were started and have not come back."""
        return self.started - self.done - self.errors.total()

    def start(self, intended_s: float, started_s: float) -> None:
        """Note that something began that was to begin at `intended_s`."""
        self.started += 1
        self.lag.record_value(_us(started_s - intended_s))

    def finish(self, intended_s: float) -> None:
        """Note that it was answered now: what it waited for the generator, or behind a stall, counts."""
        now_s = self._clock()
        self.done += 1
        self.last_s = max(self.last_s, now_s)
        took_us = _us(now_s - intended_s)
        self.latency.record_value(took_us)
        self.seconds.setdefault(int(intended_s - self.began_s), _histogram()).record_value(took_us)

    def fail(self, why: str) -> None:
        """Note that it will not be answered."""
        self.errors[why] += 1
        self.last_s = max(self.last_s, self._clock())

    def end_early(self) -> None:
        """Note that nothing more will be due, before the time of the phase is over."""
        self.ran_s = max(1.0 / _MICRO, self._clock() - self.began_s)

    def figures(self) -> dict[str, Any]:
        """Give the phase as it stands in the report; latencies in milliseconds, rates in transactions a second."""
        took_s = max(self.ran_s, self.last_s - self.began_s)
        return {
            "phase": self.phase.name,
            "judged": self.phase.judged,
            "seconds": round(self.ran_s, 3),
            "drain_s": round(max(0.0, self.last_s - self.began_s - self.ran_s), 3),
            "offered_rate": round(self.due * self.size / self.ran_s, 2),
            "rate": round(self.done * self.size / took_s, 2),
            "due": self.due * self.size,
            "transactions": self.done * self.size,
            "errors": self.errors.total() * self.size,
            "error_kinds": dict(self.errors),
            "not_started": (self.due - self.started) * self.size,
            **{f"{name}_ms": _ms(self.latency, at) for name, at in PERCENTILES.items()},
            "mean_ms": round(self.latency.get_mean_value() / 1000, 3),
            "generator_lag_p99_ms": _ms(self.lag, 99.0),
            "generator_lag_max_ms": _ms(self.lag, 100.0),
            **{name: round(value, 4) for name, value in self.resources.items()},
        }

    def series(self) -> list[dict[str, float]]:
        """Give each second by the intended start: how many, and percentiles in milliseconds."""
        return [
            {"at_s": at_s, "rate": each.get_total_count() * self.size}
            | {f"{name}_ms": _ms(each, PERCENTILES[name]) for name in ("p50", "p99", "max")}
            for at_s, each in sorted(self.seconds.items())
        ]

    def distribution(self) -> list[tuple[float, float]]:
        """Give (percentile, milliseconds) for a plot that shows the tail."""
        points = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100]
        return [(float(point), _ms(self.latency, point)) for point in points]


def _us(seconds: float) -> int:
    return min(_MOST_US, max(1, int(seconds * _MICRO)))


def _ms(histogram: Any, percentile: float) -> float:
    return round(float(histogram.get_value_at_percentile(percentile)) / 1000, 3)
