"""A key is rotated as operators do it: planned in the settings, looked at, and changed at its moment."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from signer.demo.stack import KEY_LABEL, Emulator, Stack, Token, provision
from tests.service.batches import Downstream, make_batches, send
from tests.service.running import PATIENCE_S, audit_records, ready, running, sign, until

ROOT = Path(__file__).parents[2]
YOUNGER = "demo-settlement-key-2029"
LOOK_INTERVAL_S = 3


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A token with two versions of the key."""
    return provision(tmp_path_factory.mktemp("rotation") / "token", keys=(KEY_LABEL, YOUNGER))


@pytest.fixture
def stack(tmp_path: Path, emulator: Emulator, token: Token) -> Stack:
    """No plan yet."""
    return Stack(tmp_path, emulator, token)


def plan(stack: Stack, active_from: datetime, label: str = YOUNGER) -> None:
    """Let another version sign from that moment on."""
    versions = f'versions = [{{label = "{KEY_LABEL}"}}, {{label = "{label}", active_from = {active_from.isoformat()}}}]'
    text = stack.config.read_text(encoding="utf-8")
    assert f'label = "{KEY_LABEL}"' in text
    stack.config.write_text(text.replace(f'label = "{KEY_LABEL}"', versions), encoding="utf-8")


def rotation(stack: Stack) -> tuple[int, list[dict[str, Any]]]:
    """What `signer keys rotation` says, and its exit status."""
    command = [sys.executable, "-m", "signer", "keys", "rotation", "--output", "json", "--config", str(stack.config)]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout)


def test_the_plan_and_what_is_ready(stack: Stack) -> None:
    """Every version with its moment, its state and whether it passes its checks; beside a running service too."""
    plan(stack, datetime(2029, 1, 1, tzinfo=UTC))
    with running(stack):
        status, (elder, younger) = rotation(stack)
    assert status == 0
    assert (elder["label"], elder["state"], elder["ready"]) == (KEY_LABEL, "active", "yes")
    assert (younger["label"], younger["state"], younger["ready"]) == (YOUNGER, "upcoming", "yes")
    assert younger["active_from"] == "2029-01-01T00:00:00.000000Z"
    assert (elder["warning"], younger["warning"]) == (None, None)
    assert elder["fingerprint"] != younger["fingerprint"]


def test_after_its_moment_the_elder_is_retired(stack: Stack) -> None:
    """The same plan, looked at later."""
    plan(stack, datetime(2025, 1, 1, tzinfo=UTC))
    status, rows = rotation(stack)
    assert (status, [row["state"] for row in rows]) == (0, ["retired", "active"])


def test_a_plan_at_short_notice_is_warned_of(stack: Stack) -> None:
    """Others may keep key sets for 300 s; status 0, for it will sign."""
    plan(stack, datetime.now(UTC) + timedelta(seconds=290))
    status, (_, younger) = rotation(stack)
    assert (status, younger["ready"]) == (0, "yes")
    assert "who keeps key sets for 300 s may lack it" in younger["warning"]


def test_a_version_that_is_absent_keeps_the_elder_signing(stack: Stack) -> None:
    """The command says so with status 1; the service is ready, signs with the elder, and warns in three places."""
    plan(stack, datetime(2025, 1, 1, tzinfo=UTC), label="absent")
    status, rows = rotation(stack)
    assert (status, [row["state"] for row in rows]) == (1, ["active", "upcoming"])
    assert rows[1]["ready"].startswith("NO: key settlement (label absent): found no private keys")
    assert "signs with it 45 s later at the earliest" in rows[1]["warning"]
    with running(stack):
        assert ready(stack)
        assert sign(stack, "T").json()["signature"]["key_label"] == KEY_LABEL
        (warning,) = httpx.get(f"{stack.http_url}/readyz").json()["warnings"]
        assert "version absent was to sign from 2025-01-01T00:00:00.000000Z" in warning
        assert alarms(stack)
        until(lambda: "key.overdue" in {item["operation"] for item in audit_records(stack)}, "a record")


def test_a_running_service_changes_at_the_moment(stack: Stack) -> None:
    """Without a restart; the answer names the version, and the audit log tells of the change."""
    instant = datetime.now(UTC) + timedelta(seconds=15)
    plan(stack, instant)
    with running(stack):
        first = sign(stack, "T-1").json()["signature"]
        assert first["key_label"] == KEY_LABEL, "the machine is too slow: the service was up after the instant only"
        until(lambda: datetime.now(UTC) >= instant, "the instant")
        later = sign(stack, "T-2").json()["signature"]
        assert later["key_label"] == YOUNGER
        assert sign(stack, "T-1").json()["signature"] == first
        until(lambda: "key.rotated" in {item["operation"] for item in audit_records(stack)}, "a record")
    (record,) = [item for item in audit_records(stack) if item["operation"] == "key.rotated"]
    assert (record["key_label"], record["key_fingerprint"]) == (YOUNGER, later["key_fingerprint"])


@pytest.mark.parametrize("where", ["claimed:1", "audited:1"])
def test_a_batch_that_dies_before_the_moment_comes_out_as_claimed(stack: Stack, where: str) -> None:
    """Killed between claim and result, started after the moment: the whole batch is signed with the elder."""
    instant = datetime.now(UTC) + timedelta(seconds=15)
    plan(stack, instant)
    stack.environment |= {"SIGNER_SQS__VISIBILITY_TIMEOUT_S": "5", "SIGNER_SQS__WAIT_S": "1"}
    usual = dict(stack.environment)
    stack.environment["SIGNER_FAILPOINT"] = where
    batches = make_batches(1, 600)
    process = stack.start()
    send(stack, batches)
    assert process.wait(PATIENCE_S) < 0
    assert datetime.now(UTC) < instant, "the machine is too slow: it died after the instant only"
    until(lambda: datetime.now(UTC) >= instant, "the instant")
    stack.environment.clear()
    stack.environment.update(usual)
    with running(stack):
        assert sign(stack, "T").json()["signature"]["key_label"] == YOUNGER
        downstream = Downstream(stack)
        downstream.take_all(batches)
    (body,) = set(downstream.copies["BATCH-0"])
    assert {item["signature"]["key_label"] for item in json.loads(body)["transactions"]} == {KEY_LABEL}


def key_set(stack: Stack) -> tuple[set[str], float]:
    """What the service publishes, and how long that may be kept."""
    answer = httpx.get(f"{stack.http_url}/.well-known/jwks.json", timeout=PATIENCE_S)
    age = answer.headers["Cache-Control"].removeprefix("public, max-age=")
    return {key["kid"] for key in answer.json()["keys"]}, float(age)


def test_a_key_made_late_is_in_every_key_set_before_one_signs_with_it(tmp_path: Path, emulator: Emulator) -> None:
    """Two services, the moment long over, the key made then: nothing is signed that a key set somebody has lacks."""
    token = provision(tmp_path / "token")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    stacks = [Stack(tmp_path / name, emulator, token) for name in ("one", "two")]
    with ExitStack() as running_stacks:
        for stack in stacks:
            plan(stack, datetime(2025, 1, 1, tzinfo=UTC))
            stack.environment["SIGNER_READINESS_INTERVAL_S"] = str(LOOK_INTERVAL_S)
            running_stacks.enter_context(running(stack))
        before, age_s = key_set(stacks[0])
        assert age_s == LOOK_INTERVAL_S
        provision(tmp_path / "token", keys=(KEY_LABEL, YOUNGER))
        lacking_until_s, alarmed, signing = 0.0, False, set[str]()
        until_s = time.monotonic() + PATIENCE_S
        while len(signing) < len(stacks):
            assert time.monotonic() < until_s, "the younger version does not sign"
            for stack in stacks:
                asked_s = time.monotonic()
                kids, age_s = key_set(stack)
                if kids == before:
                    lacking_until_s = max(lacking_until_s, asked_s + age_s)
            for number, stack in enumerate(stacks):
                asked_s = time.monotonic()
                signature = sign(stack, f"T-{number}-{asked_s}").json()["signature"]
                if signature["key_label"] == YOUNGER:
                    assert asked_s >= lacking_until_s, "there are key sets that lack it"
                    signing.add(stack.http_url)
                else:
                    assert stack.http_url not in signing, "the elder came back"
                    alarmed |= alarms(stack)
        assert [key_set(stack)[1] for stack in stacks] == [300, 300]
        assert alarmed
        for stack in stacks:
            until(partial(alarms, stack, 0), "the alarm ends")


def alarms(stack: Stack, value: int = 1) -> bool:
    """Whether the service says that a rotation is overdue, or (0) that none is."""
    metrics = httpx.get(f"{stack.http_url}/metrics").text
    return f'signer_key_rotation_overdue{{key="settlement"}} {value}.0' in metrics


def test_two_processes_rotate_under_load() -> None:
    """The program behind `make rotation`, shorter and with less load: it finds nothing wrong."""
    command = [sys.executable, "-m", "loadtest.rotation", "--before", "25", "--after", "4", "--rate", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rotated at" in done.stdout
    assert "transactions a second of 60 asked for" in done.stdout
