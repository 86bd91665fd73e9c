"""When a load starts what, what it must show, and where a ramp ends: each guard of the load test without a service."""

import asyncio
import os
import random
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from loadtest.knee import find_knee, saturated
from loadtest.objectives import Objective, fell_behind, missed, parse_objectives
from loadtest.openloop import run_phase
from loadtest.options import read_options
from loadtest.report import Report
from loadtest.schedule import Phase, Shape, arrivals, plan
from loadtest.stopping import Stop
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier
from signer.signatures import public_key_pem


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


def test_a_ramp_alone_is_judged_by_nothing_but_the_proof() -> None:
    """It is there to be saturated."""
    assert list(missed([figures(phase="ramp-1", judged=False, errors=3, transactions=997)], [])) == []


def test_what_was_answered_has_to_be_verified_and_made_by_the_hsm() -> None:
    """More may have been: what was late was verified too, and what was refused may be signed."""
    whole = Verdict(100, compared=True, problems=[])
    assert whole.beside(100, 100).problems == []
    assert whole.beside(90, 120).problems == []
    (said,) = whole.beside(101, 101).problems
    assert "101 transactions were answered, 100 of them" in said
    (said,) = whole.beside(100, 99).problems
    assert "99 were made by the HSM" in said


@pytest.mark.parametrize(
    ("missed_it", "behind", "problems", "status"),
    [([], [], [], 0), (["p99"], [], [], 1), ([], [], ["twice"], 1), (["p99"], ["late"], ["twice"], 3)],
)
def test_the_exit_status_says_whether_it_passed(
    missed_it: list[str], behind: list[str], problems: list[str], status: int
) -> None:
    """A generator that fell behind comes first: then nothing else counts."""
    verdict = Verdict(1, compared=True, problems=problems)
    report = Report("http", "", {}, {}, [], [], missed_it, behind, verdict, None)
    assert (report.status, report.passed) == (status, status == 0)


def test_a_verifier_that_died_proves_nothing() -> None:
    """Whatever it had verified."""
    with closing(Verifier(public_key_pem(rsa.generate_private_key(65537, 2048).public_key()))) as verifier:
        assert verifier.pid is not None
        os.kill(verifier.pid, signal.SIGKILL)
        for _ in range(200):
            verifier.send("T", b"")
        verdict = verifier.result([], [])
    assert (verdict.verified, verdict.compared) == (0, False)
    assert "ended before its time" in verdict.problems[0]


async def stop_soon(stop: Stop) -> Tally:
    async def signal_soon() -> None:
        await asyncio.sleep(0.1)
        signal.raise_signal(signal.SIGTERM)

    soon = asyncio.create_task(signal_soon())
    tally = await run_phase(Sleeper(0.0), Phase("steady", 600.0, 0.01, judged=True), lambda _: None, None, stop)
    await soon
    return tally


def test_a_signal_ends_a_phase_though_nothing_is_due_for_long() -> None:
    """The next arrival would be in 100 s; what is left says how long it ran."""
    stop = Stop()
    with stop.at_signals():
        tally = asyncio.run(stop_soon(stop))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM
    assert tally.figures()["seconds"] < 100


def test_the_options_of_documented_commands_are_there() -> None:
    """Each line of docs/loadtest.md that runs the load test."""
    page = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^uv run python -m loadtest (.+)$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        assert read_options(shlex.split(command)).target in {"http", "sqs"}
