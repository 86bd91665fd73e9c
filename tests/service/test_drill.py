"""The drill runs, tells what it saw, and is not to be deceived: whatever may not happen is found in the evidence."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from signer.audit.file import FileAuditLog
from signer.demo.stack import Stack
from signer.drill.checker import check
from signer.drill.evidence import Event, Evidence, Released, Sent
from signer.drill.faults import EXERCISES
from signer.drill.report import shortcomings
from signer.drill.samples import Sessions, trend
from signer.drill.signs import Signs
from signer.drill.soak import enough
from signer.drill.trial import hold, recovered_s
from signer.ports import AuditEntry
from signer.signatures import public_key_pem
from tests.unit.stores import new_audit_log

# Over a shim of its own, whatever the run is over.
pytestmark = pytest.mark.once

ZEROS = {"lost": 0, "conflicting": 0, "wrong_released": 0, "unaudited": 0}
KEY = rsa.generate_private_key(65537, 2048)


def drill(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; it puts the shim before SoftHSM itself, whatever this run of the tests is over."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    command = [sys.executable, "-m", "signer", "drill", "--dir", str(directory / "drill")]
    command += ["--reports", str(directory / "reports"), *arguments]
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.timeout(240)
def test_a_short_drill_proves_what_came_out_and_draws_it(tmp_path: Path) -> None:
    """Three faults, one that kills and one that needs a person: a row for each and entrance, and the four zeros."""
    names = ["login dropped", "killed in C_Sign", "every signature wrong"]
    done = drill(tmp_path, *(argument for name in names for argument in ("--only", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / "drill.json").read_text())
    rows = report["faults"]
    assert [(row["name"], row["entrance"]) for row in rows] == [
        (name, via) for name in names for via in ("http", "sqs")
    ]
    assert all(row.keys() == {"name", "entrance", "detected_s", "recovered_s", "failed", *ZEROS} for row in rows)
    assert all({name: row[name] for name in ZEROS} == ZEROS for row in rows)
    assert all(row["recovered_s"] is not None for row in rows)
    # A machine that is busy may have its login back before anybody looked for a sign of the loss.
    assert all(row["detected_s"] is not None for row in rows if row["name"] != "login dropped")
    failed = {name: {code for row in rows if row["name"] == name for code in row["failed"]} for name in names}
    assert "no_answer" in failed["killed in C_Sign"]
    assert {"signature_invalid", "hsm_unavailable"} <= failed["every signature wrong"]
    picture = "".join(ET.fromstring((tmp_path / "reports" / "drill.svg").read_text()).itertext())  # noqa: S314 - our own
    assert all(words in picture for words in [*names, "0 lost, 0 conflicting, 0 wrong released, 0 unaudited"])


class EndsBetweenTwoLooks(Signs):
    """A process that is alive whenever it is looked at, until somebody asks for its end."""

    def __init__(self) -> None:
        self.ended = False

    def died(self) -> bool:
        """Whether it ended: it does at the first question."""
        self.ended = True
        return True

    def seen(self) -> bool:
        """Whether the end was seen."""
        return self.ended


def test_an_end_between_two_looks_is_seen() -> None:
    """What ends the fault is a sign of it: a process that is gone right after a look was noticed nonetheless."""
    killed = next(exercise for exercise in EXERCISES if exercise.name == "killed in C_Sign")
    assert hold(killed, EndsBetweenTwoLooks(), time.time()) is not None


def a_row(name: str, recovered_s: float | None, kind: str = "session") -> dict[str, Any]:
    """What the judgement of a drill depends on."""
    return {
        "name": name, "kind": kind, "silent": False, "entrance": "sqs", "detected_s": 0.1, "recovered_s": recovered_s
    }  # fmt: skip


def test_what_was_not_proven_is_said() -> None:
    """A drill that was cut short, or never came back, did not hold, however many zeros it has."""
    rows = [a_row("a", 0.1), a_row("b", 2.0), a_row("c", 1.5), a_row("d", 2.9, "rebuild")]
    assert list(shortcomings(rows, 4, whole=False)) == []
    assert list(shortcomings(rows, 5, whole=False)) == ["cut short: 4 of 5 faults had their turn"]
    assert list(shortcomings(rows, 4, whole=True)) == ["too slow: session, 1.50 s where 1 s are the goal"]
    assert list(shortcomings([*rows, a_row("e", None)], 5, whole=False)) == ["not recovered from: e, over sqs"]
    unseen = a_row("e", 0.1, "throttle") | {"detected_s": None}
    assert "not noticed: e" in list(shortcomings([*rows, unseen], 5, whole=True))
    assert not any("e" in said.split() for said in shortcomings([*rows, unseen | {"silent": True}], 5, whole=True))


@pytest.mark.timeout(240)
def test_a_short_soak_watches_memory_descriptors_and_sessions(tmp_path: Path) -> None:
    """Faults come by a seed; nothing is lost, and the module has no session open that nobody has."""
    done = drill(tmp_path, "--soak", "0.3", "--seed", "1", "--only", "login dropped", "--only", "device memory")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "reports" / "soak.json").read_text())
    assert {name: report[name] for name in ZEROS} == ZEROS
    assert (report["held"], report["seed"], report["deaths"]) == (True, 1, [])
    assert report["faults"].keys() | report["not_made"].keys() <= {"login dropped", "device memory"}
    assert sum(report["faults"].values()) > sum(report["not_made"].values())
    assert report["sessions"]["leaked"] == 0
    assert report["memory_bytes"]["early"] > 0
    assert report["descriptors"]["early"] > 0


@pytest.mark.timeout(240)
def test_a_configured_token_is_drilled_with_nothing_else_of_its_service(stack: Stack, softhsm_module: Path) -> None:
    """Token, PIN and key are those of the settings; queues, ledger and audit log are the drill's own."""
    environment = {"SIGNER_HSM__MODULE": str(softhsm_module), "SOFTHSM2_CONF": stack.environment["SOFTHSM2_CONF"]}
    arguments = ("--config", str(stack.config), "--only", "login dropped")
    done = drill(stack.directory, *arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not stack.audit_directory.exists()
    assert list((stack.directory / "drill" / "audit").glob("*.jsonl"))


def test_a_token_that_may_be_in_production_is_not_drilled(stack: Stack) -> None:
    """Exit status 78 where the settings do not say `production = false`, and nothing was started."""
    done = drill(stack.directory, "--config", str(stack.config), SIGNER_HSM__PRODUCTION="true")
    assert (done.returncode, "hsm.production" in done.stderr) == (78, True)
    assert not (stack.directory / "drill" / "serve.log").exists()


def test_an_unknown_fault_is_refused_by_name(tmp_path: Path) -> None:
    """The message lists those that there are."""
    done = drill(tmp_path, "--only", "bad weather")
    assert (done.returncode, "login dropped" in done.stderr) == (78, True)


def test_a_soak_whose_faults_found_nothing_to_break_does_not_hold() -> None:
    """One in ten may, and one more, since a short one has few."""
    assert [enough(3, 1), enough(90, 11)] == [True, True]
    assert [enough(0, 0), enough(1, 1), enough(90, 12)] == [False, False, False]


def test_the_catalogue_has_many_distinct_faults() -> None:
    """At least 25, no two of one name."""
    assert len({exercise.name for exercise in EXERCISES}) == len(EXERCISES) >= 25


# --- the proof ------------------------------------------------------------------------------------------------------


def content_of(number: int, amount: str = "1.00") -> dict[str, str]:
    return {"amount": amount, "currency": "EUR", "number": str(number)}


def released(number: int, audit_id: str, content: dict[str, str]) -> Released:
    """What the service would release."""
    octets = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    value = KEY.sign(octets, padding.PKCS1v15(), hashes.SHA256())
    signature = {
        "algorithm": "RSASSA_PKCS1_V1_5_SHA_256",
        "digest": base64.b64encode(hashlib.sha256(octets).digest()).decode(),
        "value": base64.b64encode(value).decode(),
        "audit_id": audit_id,
    }
    return Released(f"T-{number}", signature, content)


def recorded(log: FileAuditLog, copy: Released, outcome: str = "signed") -> Released:
    """Record a copy as the service would, and name its record in it."""
    digest = base64.b64decode(copy.signature["digest"]).hex()
    entry = AuditEntry(
        time="2028-03-08T12:00:00.123456Z",
        operation="sign",
        outcome=outcome,
        transaction_id=copy.transaction_id,
        digest=f"sha256:{digest}",
        signature_sha256="sha256:" + hashlib.sha256(copy.value()).hexdigest(),
    )
    (audit_id,) = log.append([entry])
    return replace(copy, signature={**copy.signature, "audit_id": audit_id})


class World:
    """Three transactions, sent, recorded and released as they should be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.evidence = Evidence()
        for number in range(3):
            self.evidence.send(Sent(f"T-{number}", "sqs", content_of(number), number))
        self.release(*(released(number, "", content_of(number)) for number in range(3)))

    def release(self, *copies: Released) -> None:
        """Record and release."""
        with closing(new_audit_log(self.directory)) as log:
            for copy in copies:
                self.evidence.release(recorded(log, copy))

    def counts(self) -> dict[str, int]:
        return check(self.evidence, self.directory, public_key_pem(KEY.public_key())).counts()


def never_signed(world: World) -> None:
    world.evidence.released.pop()


def signed_otherwise(world: World) -> None:
    world.release(released(1, "", content_of(1, amount="9.00")))


def recorded_otherwise(world: World) -> None:
    with closing(new_audit_log(world.directory)) as log:
        recorded(log, released(1, "", content_of(1, amount="9.00")))


def withheld_otherwise(world: World) -> None:
    with closing(new_audit_log(world.directory)) as log:
        recorded(log, released(1, "", content_of(1, amount="9.00")), "failed")


def released_as_failed(world: World) -> None:
    copy = world.evidence.released.pop(1)
    with closing(new_audit_log(world.directory)) as log:
        world.evidence.release(recorded(log, copy, "failed"))


def one_bit_wrong(world: World) -> None:
    copy = world.evidence.released[1]
    value = bytearray(copy.value())
    value[-1] ^= 1
    spoilt = {**copy.signature, "value": base64.b64encode(value).decode()}
    world.evidence.released.pop(1)
    world.release(replace(copy, signature=spoilt))


def digest_misstated(world: World) -> None:
    copy = world.evidence.released[1]
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    world.evidence.released[1] = replace(copy, signature={**copy.signature, "digest": other})


def content_changed(world: World) -> None:
    copy = world.evidence.released[1]
    world.evidence.released[1] = replace(copy, message=content_of(1, amount="9.00"))


def never_sent(world: World) -> None:
    world.release(replace(released(7, "", content_of(7)), message=None))


def not_recorded(world: World) -> None:
    world.evidence.release(released(1, world.evidence.released[1].signature["audit_id"][:-1] + "9", content_of(1)))


def another_signature_recorded(world: World) -> None:
    other = world.evidence.released[0].signature["audit_id"]
    copy = world.evidence.released[1]
    world.evidence.released[1] = replace(copy, signature={**copy.signature, "audit_id": other})


def chain_altered(world: World) -> None:
    (segment,) = world.directory.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"T-1"', b'"T-9"'))


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (never_signed, {"lost": 1}),
        (signed_otherwise, {"conflicting": 1, "wrong_released": 1}),
        (recorded_otherwise, {"conflicting": 1}),
        (withheld_otherwise, {"conflicting": 1}),
        (released_as_failed, {"unaudited": 1}),
        (one_bit_wrong, {"wrong_released": 1}),
        (digest_misstated, {"conflicting": 1, "wrong_released": 1}),
        (content_changed, {"wrong_released": 1}),
        (never_sent, {"wrong_released": 1}),
        (not_recorded, {"unaudited": 1}),
        (another_signature_recorded, {"unaudited": 1}),
        (chain_altered, {"unaudited": 3}),
    ],
)
def test_whatever_may_not_happen_is_found(
    tmp_path: Path, tamper: Callable[[World], None], found: dict[str, int]
) -> None:
    """Evidence that is as it should be has nothing to find; spoilt in one way, exactly that is found."""
    world = World(tmp_path / "audit")
    assert world.counts() == ZEROS
    tamper(world)
    assert world.counts() == {**ZEROS, **found}


def test_a_broken_chain_is_never_clean(tmp_path: Path) -> None:
    """Even where no released signature depends on it."""
    world = World(tmp_path / "audit")
    (segment,) = world.directory.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"T-1"', b'"T-9"'))
    world.evidence.released.clear()
    world.evidence.sent.clear()
    findings = check(world.evidence, world.directory, public_key_pem(KEY.public_key()))
    assert (findings.clean, findings.audit_problem is None) == (False, False)


def events(*moments: tuple[float, str | None, float]) -> list[Event]:
    return [Event(at_s, "http", code, asked_s) for at_s, code, asked_s in moments]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (events((11, None, 10.5)), 1),
        (events((11, None, 9), (12, None, 11)), 2),
        (events((11, None, 10.5), (12, "hsm_unavailable", 11), (13, None, 12)), 3),
        (events((11, None, 10.5), (12, "hsm_unavailable", 11)), None),
        (events((9, "hsm_unavailable", 8), (11, None, 10)), 1),
        ([], None),
    ],
)
def test_recovery_is_the_first_success_after_which_nothing_fails(seen: list[Event], expected: float | None) -> None:
    """Of what was asked for after the fault had ended, at 10; what was under way then says nothing."""
    assert recovered_s(seen, "http", 10) == expected
    assert recovered_s(seen, "sqs", 10) is None


@pytest.mark.parametrize(("last", "flat"), [(104, True), (106, False)])
def test_growth_beyond_the_tolerance_is_not_flat(last: float, flat: bool) -> None:  # noqa: FBT001 - a parameter
    """The second fifth against the last one: what happens while all warms up does not count, nor does one peak."""
    values: list[Any] = [1] * 10 + [100] * 10 + [500] + [100] * 19 + [last] * 10
    assert trend(values, least_tolerance=1, share=0.05).flat is flat


def test_a_session_that_nobody_has_is_a_leak() -> None:
    """One holds the login; the pool has the others."""
    assert [Sessions(module, pool=4).leaked for module in (5, 6)] == [0, 1]
