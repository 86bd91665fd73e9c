"""What a load test must show to pass: `p99=100ms,errors=0`, and a generator that kept up."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_LATENCY: Final = re.compile(r"(p50|p90|p99|p99\.9|max)=([0-9.]+)(ms|s)")
MOST_LAG_MS: Final = 50.0
"""How late the generator may be, as p99, where nobody says otherwise."""
_ERRORS: Final = re.compile(r"errors=([0-9]+)")


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure of every judged phase, and the most it may be."""

    figure: str
    most: float

    @property
    def text(self) -> str:
        """Say it for people."""
        return f"{self.figure.removesuffix('_ms')} at most {self.most:g}{' ms' if self.figure.endswith('_ms') else ''}"


def parse_objectives(texts: Sequence[str]) -> list[Objective]:
    """Read them, with no error allowed if none is named; raises `ValueError` for what is no objective."""
    found = [_parse(word) for text in texts for word in text.split(",")]
    return found if any(each.figure == "errors" for each in found) else [*found, Objective("errors", 0)]


def _parse(word: str) -> Objective:
    if match := _LATENCY.fullmatch(word):
        return Objective(f"{match[1]}_ms", float(match[2]) * (1000 if match[3] == "s" else 1))
    if match := _ERRORS.fullmatch(word):
        return Objective("errors", float(match[1]))
    msg = f"no objective: {word} (p50, p90, p99, p99.9, max with ms or s; errors)"
    raise ValueError(msg)


def fell_behind(phases: Sequence[Mapping[str, Any]], most_lag_ms: float) -> Iterator[str]:
    """Name the judged phases in which the generator fell behind: they prove nothing, whatever their figures."""
    for phase in phases:
        if phase["judged"] and (phase["generator_lag_p99_ms"] > most_lag_ms or phase["not_started"]):
            yield (
                f"{phase['phase']}: the generator fell behind (p99 {phase['generator_lag_p99_ms']:g} ms late, "
                f"{phase['not_started']} not started): the figures do not count"
            )


def missed(phases: Sequence[Mapping[str, Any]], objectives: Sequence[Objective]) -> Iterator[str]:
    """Name what was missed in the judged phases: objectives, a phase to judge, and whatever did not come back."""
    judged = [phase for phase in phases if phase["judged"]]
    if not judged and not any(phase["phase"].startswith("ramp-") for phase in phases):
        yield "no phase was judged"
    for phase in judged:
        name, answered = phase["phase"], phase["transactions"]
        for objective in objectives:
            if phase[objective.figure] > objective.most:
                yield f"{name}: {objective.figure} was {phase[objective.figure]:g}, objective {objective.text}"
        if not answered or answered + phase["errors"] != phase["due"]:
            yield f"{name}: {answered} transactions came back of {phase['due']} that were due"
