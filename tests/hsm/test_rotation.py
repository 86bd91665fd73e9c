"""A key is rotated at its moment, to a version that passed its checks and made a test signature, or not at all."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from signer import logs
from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import HsmUnavailableError, KeyNotReadyError, KeyRefusedError, SignerError
from signer.metrics import Metrics
from signer.ports import AuditEntry, RawSignature, SigningKey, SignTask, VersionState
from signer.readiness import Readiness
from signer.signatures import DEFAULT_ALGORITHM, verifies
from tests.hsm.conftest import GOOD_LABEL, HOUR, INSTANT, SECOND_LABEL, Clock, Opened, OpenKeyRing, spec
from tests.hsm.tap import CKR_HOST_MEMORY, tapped
from tests.simulators import SimulatedAuditLog


def probe(opened: Opened, audit: SimulatedAuditLog | None = None) -> tuple[str, ...]:
    """Probe once as the service does, and give what is wrong."""
    readiness = Readiness(
        opened.key_ring,
        audit or SimulatedAuditLog(),
        Metrics(CollectorRegistry()),
        logs.get("test"),
        opened.wall_clock,
        3600,
    )
    readiness.probe()
    return readiness.problems()


def sign(key: SigningKey, opened: Opened) -> RawSignature | SignerError:
    """Sign something with exactly this key."""
    task = SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"x").digest())
    (answered,) = opened.key_ring.sign([task], Deadline.after(30))
    if isinstance(answered, RawSignature):
        assert verifies(key.public_key, task.algorithm, task.digest, answered.value)
    return answered


def label_now(opened: Opened) -> str:
    """Which version signs."""
    return opened.key_ring.key("settlement").label


def gauge(opened: Opened, name: str, **labels: str) -> float | None:
    """The value of a metric about the key."""
    return opened.metrics.registry.get_sample_value(name, {"key": "settlement", **labels})


def states(opened: Opened) -> dict[str, VersionState]:
    """The state of each version."""
    return {version.label: version.state for version in opened.key_ring.versions("settlement")}


def told(incidents: list[AuditEntry]) -> list[tuple[str, str | None]]:
    """What happened to which key label."""
    return [(entry.operation, entry.key_label) for entry in incidents]


def test_it_changes_at_the_instant(open_planned: Callable[..., Opened], clock: Clock) -> None:
    """One microsecond before it the elder signs, at it the younger, on sessions that were open all along."""
    opened = open_planned()
    audit = SimulatedAuditLog()
    assert probe(opened, audit) == ()
    assert [entry.key_label for entry in audit.of("probe")] == [GOOD_LABEL, SECOND_LABEL]
    assert opened.key_ring.warnings() == ()
    assert opened.key_ring.take_incidents() == []
    clock.now = INSTANT - timedelta(microseconds=1)
    assert label_now(opened) == GOOD_LABEL
    assert states(opened) == {GOOD_LABEL: VersionState.ACTIVE, SECOND_LABEL: VersionState.UPCOMING}
    clock.now = INSTANT
    assert label_now(opened) == SECOND_LABEL
    assert states(opened) == {GOOD_LABEL: VersionState.RETIRED, SECOND_LABEL: VersionState.ACTIVE}
    assert isinstance(sign(opened.key_ring.key("settlement"), opened), RawSignature)
    assert told(opened.key_ring.take_incidents()) == [("key.rotated", SECOND_LABEL)]
    assert opened.key_ring.take_incidents() == []


def test_what_was_chosen_before_is_signed_after(open_planned: Callable[..., Opened], clock: Clock) -> None:
    """The elder still signs for who got it before the instant: its batch is under way."""
    opened = open_planned()
    probe(opened)
    elder = opened.key_ring.key("settlement")
    clock.now = INSTANT + HOUR
    assert isinstance(sign(elder, opened), RawSignature)


@pytest.mark.parametrize("label", ["absent", "wrong-extractable", "wrong-bits", "wrong-two"])
def test_a_version_that_is_not_right_does_not_sign(
    open_planned: Callable[..., Opened], clock: Clock, label: str
) -> None:
    """Its elder goes on, which is a warning before the instant, and an alarm and a record from then on; ready it is."""
    opened, audit = open_planned(label), SimulatedAuditLog()
    assert probe(opened) == ()
    (warning,) = opened.key_ring.warnings()
    assert warning.startswith(f"key settlement: version {label} is to sign from 2029-01-01T00:00:00.000000Z")
    opened.key_ring.take_incidents()
    assert gauge(opened, "signer_key_rotation_overdue") == 0
    clock.now = INSTANT
    opened.key_ring.check_keys()
    assert probe(opened, audit) == ()
    assert label_now(opened) == GOOD_LABEL
    assert opened.key_ring.take_incidents() == []
    (entry,) = audit.of("key.overdue")
    assert entry.detail is not None
    assert f"{GOOD_LABEL} goes on" in entry.detail
    assert "was to sign" in opened.key_ring.warnings()[0]
    assert gauge(opened, "signer_key_rotation_overdue") == 1
    assert gauge(opened, "signer_key_version_ready", label=label) == 0


def test_without_a_test_signature_it_does_not_sign(
    open_planned: Callable[..., Opened], clock: Clock, softhsm: Token
) -> None:
    """A key that looks right and cannot sign is found out before its time, and comes in once it can."""
    with tapped(softhsm.module) as tap:
        opened = open_planned()
        bad = opened.key_ring.versions("settlement")[1].key
        assert bad is not None
        refusing = True

        def refuse_second(real: Callable[..., int], *arguments: int) -> int:
            if refusing and arguments[2] in handles_of(opened, SECOND_LABEL):
                return CKR_HOST_MEMORY
            return int(real(*arguments))

        tap.instead["C_SignInit"] = refuse_second
        assert probe(opened) == ()
        clock.now = INSTANT
        assert label_now(opened) == GOOD_LABEL
        assert "its test signature failed" in opened.key_ring.warnings()[0]
        refusing = False
        assert probe(opened) == ()
        assert label_now(opened) == SECOND_LABEL


def handles_of(opened: Opened, label: str) -> set[int]:
    """The handles that a key has in the sessions that are open."""
    sessions = opened.key_ring._pool._open  # noqa: SLF001 - handles are nobody else's business
    return {session.keys[label] for session in sessions if label in session.keys}


def test_trouble_of_the_hsm_does_not_take_readiness_back(
    open_planned: Callable[..., Opened], clock: Clock, softhsm: Token
) -> None:
    """A version that proved itself signs at the instant, though no probe went well since: all tasks change at once."""
    with tapped(softhsm.module) as tap:
        opened = open_planned()
        probe(opened)
        tap.instead["C_SignInit"] = lambda _real, *_arguments: CKR_HOST_MEMORY
        assert probe(opened)
        clock.now = INSTANT
        assert label_now(opened) == SECOND_LABEL


def test_after_a_start_nothing_is_signed_until_it_is_decided(open_planned: Callable[..., Opened], clock: Clock) -> None:
    """Started after the instant: which version signs is known after the first probe, and neither signs before."""
    clock.now = INSTANT + HOUR
    opened = open_planned()
    with pytest.raises(KeyNotReadyError):
        label_now(opened)
    assert probe(opened) == ()
    assert label_now(opened) == SECOND_LABEL
    assert opened.key_ring.take_incidents() == []


def test_a_version_that_changes_before_its_time_does_not_sign(
    open_planned: Callable[..., Opened], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ready once is not ready for ever: each check counts until the instant, though a probe would go well."""
    opened = open_planned()
    probe(opened)
    version = opened.key_ring._versions.plan("settlement")[1]  # noqa: SLF001
    monkeypatch.setattr(version, "spec", replace(version.spec, label="wrong-extractable"))
    opened.key_ring.check_keys()
    assert probe(opened) == ()
    clock.now = INSTANT
    assert label_now(opened) == GOOD_LABEL
    assert opened.key_ring.problems() == ()


def test_once_in_force_there_is_no_way_back(
    open_planned: Callable[..., Opened], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that changes after the instant is out of service, as any key that drifts: its elder does not return."""
    opened = open_planned()
    probe(opened)
    clock.now = INSTANT
    version = opened.key_ring._versions.plan("settlement")[1]  # noqa: SLF001
    monkeypatch.setattr(version, "spec", replace(version.spec, label="wrong-extractable"))
    opened.key_ring.check_keys()
    assert label_now(opened) == SECOND_LABEL
    assert isinstance(sign(opened.key_ring.key("settlement"), opened), HsmUnavailableError)
    assert opened.key_ring.problems()


def test_a_version_that_is_over_is_none(open_planned: Callable[..., Opened], clock: Clock) -> None:
    """From its `verify_until` on it is not among the versions."""
    opened = open_planned(elder=replace(spec(), verify_until=INSTANT + HOUR))
    probe(opened)
    clock.now = INSTANT + HOUR
    assert states(opened) == {SECOND_LABEL: VersionState.ACTIVE}


@pytest.mark.parametrize("elder", ["absent", "wrong-sign"])
def test_a_key_without_any_version_to_sign_with_is_refused(open_planned: Callable[..., Opened], elder: str) -> None:
    """Before the instant the younger cannot stand in for an elder that is not right."""
    with pytest.raises(KeyRefusedError, match=f"label {elder}"):
        open_planned(elder=spec(elder))


def test_a_key_whose_time_has_not_come_is_refused(open_key_ring: OpenKeyRing, clock: Clock) -> None:
    """A plan in which nothing signs now is a mistake in the settings."""
    with pytest.raises(KeyRefusedError, match="none of its versions may sign now"):
        open_key_ring(replace(spec(), active_from=INSTANT), clock=clock)
