"""When a load starts what, what it must show, and where a ramp ends: each guard of the load test without a service."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from loadtest.knee import find_knee, saturated
from loadtest.objectives import Objective, fell_behind, missed, parse_objectives
from loadtest.openloop import run_phase
from loadtest.schedule import Phase, Shape, arrivals, plan
from loadtest.tally import Tally


def figures(**changed: Any) -> dict[str, Any]:
    """Give the figures of a phase in which all went well."""
    well = {
        "phase": "steady", "judged": True, "due": 1000, "transactions": 1000, "errors": 0, "not_started": 0,
        "offered_rate": 100.0, "rate": 100.0, "p50_ms": 8.0, "p99_ms": 20.0, "generator_lag_p99_ms": 1.0,
    }  # fmt: skip
    return well | changed


def test_constant_arrivals_are_evenly_spaced_and_complete() -> None:
    """As many as rate and time make, the first at once, the last before the end."""
    times = list(arrivals(5.0, 200.0, None))
    assert len(times) == 1000
    assert times[0] == 0.0
    assert times[-1] < 5.0
    assert {round(after - before, 9) for before, after in pairwise(times)} == {0.005}


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    """Counts in a second have the rate as their mean and as their variance; gaps are not even."""
    times = list(arrivals(1000.0, 50.0, random.Random(7)))  # noqa: S311 - no secret
    counts = Counter(int(at_s) for at_s in times)
    mean = len(times) / 1000
    variance = sum((counts[second] - mean) ** 2 for second in range(1000)) / 1000
    assert abs(mean - 50.0) < 1.0
    assert 40.0 < variance < 60.0


def test_phases_come_in_order_and_the_ramp_is_last() -> None:
    """What comes after saturation would be no measurement."""
    shape = Shape(200.0, 60.0, spike_rate=400.0, soak_s=30.0, ramp_to=800.0, ramp_steps=4)
    phases = list(plan(shape))
    assert [phase.name for phase in phases[:5]] == ["warm-up", "steady", "spike", "recovery", "soak"]
    assert [phase.rate for phase in phases[5:]] == [200.0, 400.0, 600.0, 800.0]
    assert [phase.name for phase in phases if phase.judged] == ["steady", "recovery", "soak"]


class Sleeper:
    """An entrance that keeps the generator from its work."""

    size = 1

    def __init__(self, blocks_s: float) -> None:
        self._blocks_s = blocks_s

    async def send(self, tally: Tally, intended_s: float) -> None:
        tally.start(intended_s, time.perf_counter())
        time.sleep(self._blocks_s)  # noqa: ASYNC251 - this is what is tested
        tally.finish(intended_s)


def test_a_generator_that_falls_behind_says_so_and_its_latencies_have_the_wait() -> None:
    """20 ms of work are due every 10 ms: the last of 50 begins half a second late, and is as slow as that."""
    tally = asyncio.run(run_phase(Sleeper(0.02), Phase("steady", 0.5, 100.0, judged=True), lambda _: None))
    phase = tally.figures()
    assert phase["transactions"] == phase["due"] == 50
    assert phase["generator_lag_max_ms"] > 400
    assert phase["max_ms"] > 400
    (why,) = fell_behind([phase], 50.0)
    assert "fell behind" in why


def test_arrivals_that_were_never_started_are_the_generators_fault() -> None:
    """Even if all that were started are fast."""
    assert list(fell_behind([figures()], 50.0)) == []
    assert list(fell_behind([figures(not_started=3)], 50.0))


@pytest.mark.parametrize(
    "wrong",
    [{"p99_ms": 100.1}, {"errors": 1, "transactions": 999}, {"transactions": 999}, {"transactions": 0, "due": 0}],
)
def test_every_objective_can_be_missed(wrong: dict[str, Any]) -> None:
    """Too slow, an error, one that did not come back, nothing at all."""
    objectives = parse_objectives(["p99=100ms"])
    assert list(missed([figures()], objectives)) == []
    assert list(missed([figures(**wrong)], objectives))


def test_without_a_judged_phase_nothing_is_met() -> None:
    """A duration of nothing passes nothing."""
    assert list(missed([figures(judged=False)], [])) == ["no phase was judged"]


def test_objectives_are_read_and_no_error_is_allowed_unless_it_is_said() -> None:
    """Seconds are milliseconds inside; several in one word or in many."""
    assert parse_objectives(["p50=20ms,p99.9=1.5s"]) == [
        Objective("p50_ms", 20.0), Objective("p99.9_ms", 1500.0), Objective("errors", 0)
    ]  # fmt: skip
    assert parse_objectives(["errors=5"]) == [Objective("errors", 5.0)]
    with pytest.raises(ValueError, match="p98"):
        parse_objectives(["p98=1ms"])


def ramp(*last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number, changed in enumerate([{}, {}, *last], 1):
        rate = 100.0 * number
        cores = {"service_cores": 0.2 * number, "machine_cores": 0.3 * number}
        yield figures(phase=f"ramp-{number}", offered_rate=rate, rate=rate, **cores) | changed


@pytest.mark.parametrize(
    ("changed", "resource"),
    [
        ({"rate": 250.0, "sessions": 2, "sessions_busy": 1.9, "hsm_ms": 7.6}, "HSM sessions: 1.9 of 2"),
        ({"rate": 250.0, "service_cores": 1.0}, "CPU of the service"),
        ({"rate": 250.0, "queue_cores": 0.97}, "the local emulator"),
        ({"p50_ms": 90.0, "generator_lag_p99_ms": 80.0}, "generator"),
        ({"errors": 4}, "unknown"),
    ],
)
def test_the_knee_is_the_last_step_that_was_followed_and_has_a_resource(changed: Any, resource: str) -> None:
    """However the next one failed."""
    steps = list(ramp(changed))
    assert saturated(steps[2], steps[0])
    knee = find_knee(steps, 50.0)
    assert knee is not None
    assert (knee["found"], knee["rate"], knee["step"]) == (True, 200.0, "ramp-3")
    assert resource in knee["resource"]


def test_a_ramp_that_was_followed_to_its_end_has_no_knee() -> None:
    """And without a ramp there is nothing to say."""
    knee = find_knee(list(ramp()), 50.0)
    assert knee is not None
    assert not knee["found"]
    assert find_knee([], 50.0) is None
