"""What a load test must show to pass: `p99=100ms,errors=0`, and a generator that kept up."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_LATENCY: Final = re.compile(r"(p50|p90|p99|p99\.9|max)=([0-9.]+)(ms|s)")
_ERRORS: Final = re.compile(r"errors=([0-9]+)")
_KEPT_UP: Final = 0.99


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure of every judged phase, and the most it may be."""

    figure: str
    most: float

    @property
    def text(self) -> str:
        """Say it for people."""
        return f"{self.figure.removesuffix('_ms')} at most {self.most:g}{' ms' if self.figure.endswith('_ms') else ''}"


def parse_objectives(text: str) -> list[Objective]:
    """Read them; raises `ValueError` for what is none."""
    found = []
    for word in text.split(","):
        if match := _LATENCY.fullmatch(word):
            found.append(Objective(f"{match[1]}_ms", float(match[2]) * (1000 if match[3] == "s" else 1)))
        elif match := _ERRORS.fullmatch(word):
            found.append(Objective("errors", float(match[1])))
        else:
            msg = f"no objective: {word} (p50, p90, p99, p99.9, max with ms or s; errors)"
            raise ValueError(msg)
    return found


def failures(phases: Sequence[Mapping[str, Any]], objectives: Sequence[Objective], most_lag_ms: float) -> Iterator[str]:
    """Name what was missed; a phase in which the generator fell behind proves nothing, whatever its figures."""
    judged = [phase for phase in phases if phase["judged"]]
    if not judged and not any(phase["phase"].startswith("ramp-") for phase in phases):
        yield "no phase was judged"
    for phase in judged:
        name = phase["phase"]
        if phase["generator_lag_p99_ms"] > most_lag_ms or phase["not_started"]:
            yield (
                f"{name}: the generator fell behind (p99 {phase['generator_lag_p99_ms']:g} ms late, "
                f"{phase['not_started']} not started): the figures do not count"
            )
        for objective in objectives:
            if phase[objective.figure] > objective.most:
                yield f"{name}: {objective.figure} was {phase[objective.figure]:g}, objective {objective.text}"
        if not phase["transactions"]:
            yield f"{name}: nothing was signed"
        if phase["rate"] < _KEPT_UP * phase["offered_rate"] - phase["errors"] / phase["seconds"]:
            yield f"{name}: {phase['rate']:g}/s came back of {phase['offered_rate']:g}/s"
