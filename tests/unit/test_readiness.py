"""Ready means: every key made a signature that verified, its record is durable, and that was recent."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from signer import logs
from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, HsmUnavailableError, LedgerUnavailableError, SignerError
from signer.ports import AuditEntry, RawSignature, SignTask
from signer.readiness import Readiness
from tests.simulators import Simulation, simulate


@pytest.fixture
def simulation() -> Simulation:
    """Two keys."""
    return simulate({"settlement": frozenset(), "payout": frozenset()})


def readiness_of(simulation: Simulation, interval_s: float = 60) -> Readiness:
    """Build it over simulated edges."""
    return Readiness(
        simulation.key_ring,
        simulation.audit,
        simulation.metrics,
        logs.get("test"),
        lambda: datetime.now(UTC),
        interval_s,
    )


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = Deadline.after(20)
    while not true():
        deadline.check()
        time.sleep(0.01)


def test_ready_only_after_every_key_has_signed(simulation: Simulation) -> None:
    """Not ready before the first probe; ready after one in which each key signed, and each use is audited."""
    readiness = readiness_of(simulation)
    assert readiness.problems()
    readiness.probe()
    assert readiness.problems() == ()
    assert [task.key.alias for task in simulation.key_ring.signed] == ["settlement", "payout"]
    for entry in simulation.audit.of("probe"):
        assert (entry.outcome, entry.session_handle, entry.crypto_user) == ("done", 11, "crypto_user")
        assert entry.signature_sha256 is not None


def test_one_key_that_fails_makes_it_not_ready(simulation: Simulation) -> None:
    """The problem names the key and the code; the next probe that goes well ends it."""
    readiness = readiness_of(simulation)
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    readiness.probe()
    assert readiness.problems() == ("key settlement: hsm_unavailable: connection lost",)
    readiness.probe()
    assert readiness.problems() == ()


def test_an_outage_is_recorded_once_not_with_every_probe(simulation: Simulation) -> None:
    """Probes that fail the same way leave one record; the one that succeeds leaves its own."""
    readiness = readiness_of(simulation)
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"), times=20)
    for _ in range(11):
        readiness.probe()
    outcomes = [entry.outcome for entry in simulation.audit.of("probe") if entry.key_alias == "settlement"]
    assert outcomes == ["failed", "done"]


def test_without_the_audit_log_it_is_not_ready(simulation: Simulation) -> None:
    """The record is part of the probe."""
    readiness = readiness_of(simulation)
    simulation.audit.fail_next(AuditUnavailableError("disk full"))
    readiness.probe()
    assert readiness.problems() == ("key settlement: audit_unavailable: disk full",)


def spoil(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every signature be wrong."""
    real = simulation.key_ring.sign

    def spoiled(tasks: Sequence[SignTask], deadline: Deadline, **how: Any) -> list[RawSignature | SignerError]:
        (answer,) = real(tasks, deadline, **how)
        assert isinstance(answer, RawSignature)
        return [replace(answer, value=answer.value[::-1], sound=False)]

    monkeypatch.setattr(simulation.key_ring, "sign", spoiled)


def test_a_wrong_signature_makes_it_not_ready(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key whose signature does not verify has proven nothing."""
    spoil(simulation, monkeypatch)
    readiness = readiness_of(simulation)
    readiness.probe()
    assert "signature_invalid" in readiness.problems()[0]


def incident() -> AuditEntry:
    """What the HSM edge may have to tell."""
    return AuditEntry("2028-03-08T12:00:00.000000Z", "hsm.breaker", "done", detail="open: error: CKR_DEVICE_ERROR")


def test_what_happened_is_on_record_before_a_key_proves_itself(simulation: Simulation) -> None:
    """The audit log has the incident first, then the probes, each once."""
    readiness = readiness_of(simulation)
    simulation.key_ring.incidents.append(incident())
    readiness.probe()
    readiness.probe()
    assert [entry.operation for entry in simulation.audit.entries] == ["hsm.breaker", *["probe"] * 4]


def test_while_an_incident_cannot_be_recorded_no_key_signs(simulation: Simulation) -> None:
    """It is kept until the audit log takes it; not ready meanwhile."""
    readiness = readiness_of(simulation)
    simulation.key_ring.incidents.append(incident())
    simulation.audit.fail_next(AuditUnavailableError("disk full"))
    readiness.probe()
    assert readiness.problems() == ("incidents: audit_unavailable: disk full",)
    assert simulation.key_ring.signed == []
    readiness.probe()
    assert readiness.problems() == ()
    assert simulation.audit.of("hsm.breaker") == [incident()]


def test_what_happened_last_is_recorded_at_the_end(simulation: Simulation) -> None:
    """An incident between the last look and the end is not lost."""
    readiness = readiness_of(simulation)
    readiness.probe()
    simulation.key_ring.incidents.append(incident())
    readiness.close()
    assert simulation.audit.of("hsm.breaker") == [incident()]


def test_every_wrong_signature_of_a_probe_is_told_and_recorded(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric counts it, and each is a use of the key, with its session."""
    spoil(simulation, monkeypatch)
    readiness = readiness_of(simulation)
    readiness.probe()
    readiness.probe()
    assert [entry.session_handle for entry in simulation.audit.of("probe")] == [11] * 4
    labels = {"key": "settlement"}
    assert simulation.metrics.registry.get_sample_value("signer_verification_failures_total", labels) == 2


def test_what_was_proven_too_long_ago_does_not_count(simulation: Simulation) -> None:
    """Three intervals without a probe, and the service is no longer ready."""
    readiness = readiness_of(simulation, interval_s=0.02)
    readiness.probe()
    until(lambda: readiness.problems() == ("the last probe is too old",))


def test_keys_are_looked_at_whatever_is_wrong(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that ends it may have come, and others rely on its being found within the interval."""
    looks: list[float] = []
    monkeypatch.setattr(simulation.key_ring, "check_keys", lambda: looks.append(time.monotonic()))
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"), times=10_000)
    readiness = readiness_of(simulation, interval_s=0.6)
    readiness.start()
    until(lambda: len(looks) >= 2)
    readiness.close()


def test_after_an_outage_keys_are_looked_at_at_once(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look could be had meanwhile; others may sign with what was to be found by it."""
    looks: list[float] = []
    monkeypatch.setattr(simulation.key_ring, "check_keys", lambda: looks.append(time.monotonic()))
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"), times=2)
    readiness = readiness_of(simulation, interval_s=3600)
    readiness.start()
    until(lambda: looks != [])
    assert readiness.problems() == ()
    readiness.close()


def test_what_else_must_work_is_part_of_the_probe(simulation: Simulation) -> None:
    """The ledger's proof counts like a key's; a failure since the last probe counts at once, before the next."""
    readiness, ledger_works, failed_since = readiness_of(simulation), [False], [False]

    def prove() -> None:
        if not ledger_works[0]:
            raise LedgerUnavailableError("locked")  # noqa: EM101 - it is the test's own

    readiness.also_prove("ledger", prove, lambda: not failed_since[0])
    readiness.probe()
    assert readiness.problems() == ("ledger: ledger_unavailable: locked",)
    ledger_works[0] = True
    readiness.probe()
    assert readiness.can_sign()
    failed_since[0] = True
    assert readiness.problems() == ("ledger: it failed a moment ago",)
    assert not readiness.can_sign()


def test_what_only_one_entrance_misses_is_told_but_gates_nothing(simulation: Simulation) -> None:
    """A queue that does not answer shows in readiness; it must still be polled to find out that it is back."""
    readiness = readiness_of(simulation)
    readiness.probe()
    readiness.watch(lambda: ("the inbound queue does not answer",))
    assert readiness.problems() == ("the inbound queue does not answer",)
    assert readiness.can_sign()


def test_while_draining_it_is_not_ready(simulation: Simulation) -> None:
    """Nobody shall be sent here once the end has begun."""
    readiness = readiness_of(simulation)
    readiness.probe()
    readiness.drain()
    assert readiness.problems() == ("the service is shutting down",)
