"""When a load is to start what: an open loop, for its arrivals do not wait for answers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time at one rate."""

    name: str
    seconds: float
    rate: float
    """Transactions a second."""
    judged: bool = False
    """Whether the objectives are for this phase."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What was asked for on the command line, in transactions a second and seconds."""

    rate: float
    steady_s: float
    warm_up_s: float = 5.0
    spike_rate: float = 0.0
    spike_s: float = 10.0
    soak_s: float = 0.0
    ramp_to: float = 0.0
    ramp_steps: int = 8
    ramp_step_s: float = 10.0


def plan(shape: Shape) -> Iterator[Phase]:
    """Give the phases in order; the ramp is last, for what comes after saturation is no measurement."""
    if shape.warm_up_s:
        yield Phase("warm-up", shape.warm_up_s, shape.rate)
    if shape.steady_s:
        yield Phase("steady", shape.steady_s, shape.rate, judged=True)
    if shape.spike_rate:
        yield Phase("spike", shape.spike_s, shape.spike_rate)
        yield Phase("recovery", shape.spike_s, shape.rate, judged=True)
    if shape.soak_s:
        yield Phase("soak", shape.soak_s, shape.rate, judged=True)
    if shape.ramp_to:
        for number in range(1, shape.ramp_steps + 1):
            rate = shape.rate + (shape.ramp_to - shape.rate) * (number - 1) / max(1, shape.ramp_steps - 1)
            yield Phase(f"ramp-{number}", shape.ramp_step_s, rate)


def arrivals(seconds: float, rate: float, chance: random.Random | None) -> Iterator[float]:
    """Give the seconds after the start at which something is to begin: evenly, or by `chance` as a Poisson process."""
    if chance is None:
        yield from (number / rate for number in range(int(seconds * rate + 0.5)))
        return
    at_s = chance.expovariate(rate)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate)
