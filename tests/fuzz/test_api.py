"""A short round of `make schemathesis`, by somebody with a token; and that a run which leaves something out says so."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from resource import RLIMIT_CORE, getrlimit
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from tests.canaries import pin_in
from tests.fuzz.api import run
from tests.fuzz.callers import HSM_HOME, NAMES, SERVICES, Round, rounds
from tests.fuzz.echo import CANARY, PIN_FILE, no_echo, no_secret
from tests.fuzz.leaks import leaks
from tests.fuzz.pages import PAGES, with_pages
from tests.fuzz.tally import NOBODY, Tally, read, shortcomings
from tests.integration.http_support import running as http_running

EXAMPLES = 1
"""Beside those that the checks' own rules demand: missing members, wrong types, other methods."""
CONTEXT: Final = cast("Any", None)
SIGN, LIVE = "POST /v1/sign", "GET /livez"
GOOD = [
    Tally(
        name, {(SIGN, 200): 0 if name == NOBODY else 9, (SIGN, 401): 1, (LIVE, 200): 1}, (SIGN, LIVE), (SIGN,), 11, 1, 2
    )
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
    assert tally.of("GET /docs/errors")


def test_no_secret_comes_out_of_it(services: dict[str, Round], directory: Path) -> None:
    """Neither the PIN nor a word of a wrong request; one that lies about is found, and the log is looked through."""
    assert list(leaks(directory, services.values())) == []
    for secret in (CANARY, pin_in(directory / HSM_HOME / "pin")):
        planted = directory / "site" / "planted"
        planted.write_text(f"before {secret} after", encoding="utf-8")
        assert list(leaks(directory, services.values())) == ["site/planted: a secret stands in it"]
        planted.unlink()
    assert all((directory / name / "serve.log").stat().st_size for name in SERVICES)


def test_a_secret_on_a_command_line_is_found(services: dict[str, Round], directory: Path) -> None:
    """Anybody on the machine can read it there; a process that might write a core file is told of, too."""
    waiting = [sys.executable, "-c", "input()", f"{directory / 'site'}/signer.toml", CANARY]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        found = list(leaks(directory, services.values()))
        process.communicate(b"\n")
    # Whoever runs these tests may have forbidden them core files.
    core = [f"site: process {process.pid} may write a core file"] if getrlimit(RLIMIT_CORE) != (0, 0) else []
    arguments = [f"{name}/arguments: a secret stands in it" for name in SERVICES]
    assert sorted(found) == sorted([*arguments, *core])


def asked_and_told(status: int, told: Any, asked: Any, media_type: str = "application/json") -> tuple[Any, Any]:
    """What a check of schemathesis is given, as far as ours look."""
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    headers = {"content-type": [media_type]}
    schema = SimpleNamespace(raw_schema={})
    case = SimpleNamespace(
        path_parameters={}, query={}, headers={}, cookies={}, body=asked, operation=SimpleNamespace(schema=schema)
    )
    response = SimpleNamespace(status_code=status, content=content, headers=headers)
    return cast("Any", response), cast("Any", case)


def refused_item(detail: str) -> dict[str, Any]:
    """A batch of which one item was refused, in those words."""
    return {"results": [{"reference": CANARY, "error": {"code": "invalid_input", "detail": detail}}, {"signature": {}}]}


def test_an_error_inside_a_batch_is_looked_at() -> None:
    """The batch is answered 200, and one of its items quotes; what is signed may name its key."""
    asked = {"transactions": [{"reference": CANARY, "message": {"who": "somebody unheard-of"}}]}
    with pytest.raises(AssertionError, match="somebody unheard-of"):
        no_echo(CONTEXT, *asked_and_told(200, refused_item("who is somebody unheard-of?"), asked))
    no_echo(CONTEXT, *asked_and_told(200, refused_item("a member is unknown"), asked))
    no_echo(CONTEXT, *asked_and_told(200, {"signature": {"key_alias": "unheard-of"}}, {"key": "unheard-of"}))
    no_echo(CONTEXT, *asked_and_told(200, b"unheard-of", ["unheard-of"], "text/plain"))


def test_an_answer_with_the_pin_in_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it answers to, and however it is written."""
    (tmp_path / "pin").write_text("signer-dev:a-pin-like-none\n", encoding="utf-8")
    monkeypatch.setenv(PIN_FILE, str(tmp_path / "pin"))
    for told in (b"a-pin-like-none", base64.b64encode(b"x a-pin-like-none"), b"a-pin-like-none".hex().encode()):
        with pytest.raises(AssertionError, match="a secret"):
            no_secret(CONTEXT, *asked_and_told(200, told, None, "text/plain"))
    no_secret(CONTEXT, *asked_and_told(200, b"signer-dev", None, "text/plain"))


def test_every_page_has_its_cases() -> None:
    """What the service serves is in its description, or among the pages that are added to it."""
    with http_running() as entrance:
        document = entrance.client.get("/openapi.json").json()
        described = set(document["paths"])
        served = {path for route in entrance.app.routes if (path := getattr(route, "path", None))}
    assert served == described | set(with_pages(document)["paths"])
    assert set(PAGES) == served - described


def test_a_whole_run_falls_short_of_nothing() -> None:
    """Every round, every operation, every door opened by who may, and enough of it."""
    assert list(shortcomings(GOOD, NAMES, LEAST)) == []


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("token", {"served": 9}, "token: 11 answers, and the service knows of 9 requests"),
        ("token", {"answers": {(SIGN, 200): 11}}, f"token: {LIVE} was not reached"),
        ("token", {"answers": {(SIGN, 401): 10, (LIVE, 200): 1}}, f"token: {SIGN} was never granted"),
        ("token", {"refused_items": 0}, "token: no item of a batch was refused among others"),
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
    file.write_text(f"a\t200\t{SIGN}\t2\na\t200\t{SIGN}\t2\nb\t400\t{SIGN}\t0\n", encoding="utf-8")
    assert read(file) == ({(SIGN, 200): 1, (SIGN, 400): 1}, 2)
