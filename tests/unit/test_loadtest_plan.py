"""What a load test asks for, what it accepts, and what its report says."""

import json
import random
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loadtest.knee import find_knee
from loadtest.objectives import failures, parse_objectives
from loadtest.options import parser
from loadtest.report import html
from loadtest.schedule import Phase, Shape, arrivals, plan
from loadtest.tally import Tally


def a_phase(**changed: Any) -> dict[str, Any]:
    phase = Tally(Phase("steady", 10.0, 200.0, judged=True), 1, clock=lambda: 0.0).figures()
    return phase | {"offered_rate": 200.0, "rate": 200.0, "transactions": 2000} | changed


def test_constant_arrivals_are_even() -> None:
    """Each is as long after the one before, whatever happened to it."""
    assert list(arrivals(1.0, 4.0, None)) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_its_spread() -> None:
    """Gaps are exponential: their mean is one in the rate, and so is their deviation; a seed repeats them."""
    times = list(arrivals(1000.0, 20.0, random.Random(7)))  # noqa: S311 - arrivals, not secrets
    assert len(times) == pytest.approx(20_000, rel=0.03)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)
    assert times == list(arrivals(1000.0, 20.0, random.Random(7)))  # noqa: S311 - the same again


def test_the_phases_come_in_order_and_the_ramp_last() -> None:
    """The warm-up and the ramp are not judged, nor is the spike; what follows the spike is."""
    phases = list(plan(Shape(200.0, 60.0, spike_rate=800.0, soak_s=600.0, ramp_to=1000.0, ramp_steps=3)))
    names = [phase.name for phase in phases]
    assert names == ["warm-up", "steady", "spike", "recovery", "soak", "ramp-1", "ramp-2", "ramp-3"]
    assert [phase.name for phase in phases if phase.judged] == ["steady", "recovery", "soak"]
    assert [phase.rate for phase in phases[-3:]] == [200.0, 600.0, 1000.0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"p99_ms": 101.0}, "p99_ms was 101"),
        ({"errors": 1}, "errors was 1"),
        ({"generator_lag_p99_ms": 51.0}, "the generator fell behind"),
        ({"not_started": 1}, "the generator fell behind"),
        ({"rate": 190.0}, "190/s came back of 200/s"),
        ({"transactions": 0, "rate": 0.0}, "nothing was signed"),
    ],
)
def test_each_miss_is_named(changed: dict[str, Any], said: str | None) -> None:
    """A phase passes with all of its figures or not at all."""
    found = list(failures([a_phase(**changed)], parse_objectives("p99=100ms,errors=0"), 50.0))
    assert any(said in each for each in found) if said else not found


def test_nothing_judged_is_no_pass() -> None:
    """A warm-up alone shows nothing; a ramp is no acceptance, but it is a measurement."""
    objectives = parse_objectives("errors=0")
    assert list(failures([a_phase(judged=False)], objectives, 50.0)) == ["no phase was judged"]
    assert not list(failures([a_phase(phase="ramp-1", judged=False)], objectives, 50.0))


def test_what_is_no_objective_is_refused() -> None:
    """A misspelt objective would pass every time."""
    assert parse_objectives("max=1s")[0].most == 1000.0
    for text in ("p98=1ms", "p99=100", "error=0", ""):
        with pytest.raises(ValueError, match="no objective"):
            parse_objectives(text)


@pytest.mark.parametrize(
    ("used", "named"),
    [
        ({"sessions": 64, "sessions_busy": 63.0}, "HSM sessions: 63.0 of 64"),
        ({"service_cores": 0.97}, "CPU of the service: 0.97"),
        ({"emulator_cores": 0.99}, "queue: the local emulator"),
        ({"generator_lag_p99_ms": 80.0}, "generator:"),
        ({}, "unknown"),
    ],
)
def test_the_knee_names_what_was_used_up(used: dict[str, float], named: str) -> None:
    """The knee is the last step that was followed; the reason is looked for in the step after it."""
    steps = [
        a_phase(phase="ramp-1", p50_ms=10.0),
        a_phase(phase="ramp-2", p50_ms=20.0, offered_rate=400.0, rate=399.0),
        a_phase(phase="ramp-3", p50_ms=900.0, offered_rate=800.0, rate=500.0, **used),
    ]
    knee = find_knee(steps, 50.0)
    assert knee is not None
    assert (knee["found"], knee["rate"], knee["most_rate"], knee["step"]) == (True, 399.0, 500.0, "ramp-3")
    assert named in knee["resource"]


def test_a_ramp_that_was_followed_has_no_knee() -> None:
    """Nothing is claimed about rates that were not tried."""
    knee = find_knee([a_phase(phase="ramp-1", p50_ms=10.0)], 50.0)
    assert knee is not None
    assert not knee["found"]
    assert find_knee([], 50.0) is None


def a_report(**changed: Any) -> dict[str, Any]:
    ramp = [a_phase(phase=f"ramp-{n}", p50_ms=10.0 * n, offered_rate=100.0 * n, rate=90.0 * n) for n in (1, 2)]
    series = [{"at_s": n, "rate": 200, "p50_ms": 8.0, "p99_ms": 12.0, "max_ms": 15.0} for n in range(3)]
    return {
        "target": "http", "objectives": ["p99 at most 100 ms"], "failures": [], "phases": [a_phase(), *ramp],
        "knee": find_knee(ramp, 50.0), "series": {"steady": series}, "distributions": {"steady": [(50.0, 8.0)]},
        "note": "A <note>.", "size": 1, "verified": 2000, "compared": True, "machine": {"cores": 2},
    } | changed  # fmt: skip


def test_the_report_stands_alone() -> None:
    """It says what came out, draws it, explains the knee, and asks nobody for anything."""
    page = html(a_report())
    assert "Passed: p99 at most 100 ms" in page
    assert "2,000 signatures verified with the public key, compared one by one" in page
    assert page.count("<svg") == 5
    assert "The knee" in page
    assert "A &lt;note&gt;." in page
    assert "<script" not in page
    assert 'src="' not in page
    assert 'href="' not in page


def test_the_report_says_what_failed() -> None:
    """A failed run cannot be taken for one that passed, and figures are still there."""
    page = html(a_report(failures=["steady: <p99>"], compared=False))
    assert "Failed" in page
    assert "steady: &lt;p99&gt;" in page
    assert "Passed" not in page
    assert "not compared with a ledger" in page
    assert json.dumps(a_report())


def test_documented_commands_are_understood() -> None:
    """Each line of docs/loadtest.md that runs the load test has options that it has."""
    page = (Path(__file__).parents[2] / "docs" / "loadtest.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^uv run python -m loadtest (.+)$", page, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        assert parser().parse_args(shlex.split(command)).target in {"http", "sqs"}
