"""A short round of `make schemathesis`, by somebody with a token; and that a run which leaves something out says so."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.api import run
from tests.fuzz.callers import HSM_HOME, NAMES, SERVICES, Round, rounds
from tests.fuzz.echo import CANARY
from tests.fuzz.leaks import leaks
from tests.fuzz.tally import NOBODY, Tally, read, shortcomings

EXAMPLES = 1
"""Beside those that the checks' own rules demand: missing members, wrong types, other methods."""
SIGN, LIVE = "POST /v1/sign", "GET /livez"
GOOD = [
    Tally(name, {(SIGN, 200): 0 if name == NOBODY else 9, (SIGN, 401): 1, (LIVE, 200): 1}, (SIGN, LIVE), (SIGN,), 11, 1)
    for name in NAMES
]
LEAST = sum(tally.total for tally in GOOD)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def services(directory: Path) -> Iterator[dict[str, Round]]:
    with rounds(directory) as found:
        yield {each.name: each for each in found}


@pytest.mark.parametrize("name", ["loopback", "token"])
def test_the_api_keeps_to_its_description(services: dict[str, Round], tmp_path: Path, name: str) -> None:
    """No 5xx, no status that is not told, no echo; well-formed requests are taken, others refused."""
    tally = run(services[name], tmp_path, EXAMPLES)
    assert list(shortcomings([tally], [name], least=300)) == []


def test_no_secret_comes_out_of_it(services: dict[str, Round], directory: Path) -> None:
    """Neither the PIN nor a word of a wrong request; one that lies about is found, and the log is looked through."""
    assert list(leaks(directory, services.values())) == []
    for secret in (CANARY, (directory / HSM_HOME / "pin").read_text(encoding="utf-8").strip().rpartition(":")[2]):
        planted = directory / "site" / "planted"
        planted.write_text(f"before {secret} after", encoding="utf-8")
        assert list(leaks(directory, services.values())) == ["site/planted: a secret stands in it"]
        planted.unlink()
    assert all((directory / name / "serve.log").stat().st_size for name in SERVICES)


def test_a_whole_run_falls_short_of_nothing() -> None:
    """Every round, every operation, every door opened by who may, and enough of it."""
    assert list(shortcomings(GOOD, NAMES, LEAST)) == []


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("token", {"served": 9}, "token: 11 answers, and the service knows of 9 requests"),
        ("token", {"answers": {(SIGN, 200): 11}}, f"token: {LIVE} was not reached"),
        ("token", {"answers": {(SIGN, 401): 10, (LIVE, 200): 1}}, f"token: {SIGN} was never granted"),
        (NOBODY, {"answers": {(SIGN, 200): 10, (LIVE, 200): 1}}, f"{NOBODY}: {SIGN} was granted to who has no"),
    ],
)
def test_a_round_that_falls_short_is_told_of(name: str, changes: dict[str, Any], said: str) -> None:
    """What did not reach the service, did not get through its door, or needed no key for it."""
    tallies = [replace(tally, **changes) if tally.name == name else tally for tally in GOOD]
    assert any(fault.startswith(said) for fault in shortcomings(tallies, NAMES, 0))


def test_too_few_cases_and_rounds_left_out_are_told_of() -> None:
    """A run that was cut short is none."""
    found = list(shortcomings(GOOD[1:], NAMES, LEAST))
    assert found[0] == f"{NAMES[0]}: no such round was run"
    assert found[1].endswith(f"where {LEAST} are wanted")


def test_an_answer_is_counted_once(tmp_path: Path) -> None:
    """By the service's own request id, however often its checks were run."""
    file = tmp_path / "tally"
    file.write_text(f"a\t200\t{SIGN}\na\t200\t{SIGN}\nb\t400\t{SIGN}\n", encoding="utf-8")
    assert read(file) == {(SIGN, 200): 1, (SIGN, 400): 1}
