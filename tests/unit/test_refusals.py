"""Each refusal is a record, until there are so many that they would fill the disk: then they are counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from signer import logs
from signer.api.refusals import Refusal, RefusalLog
from signer.errors import AuditUnavailableError
from signer.metrics import Metrics
from signer.ports import AuditEntry
from signer.refusal_bounds import WINDOW_S
from tests.integration.http_support import captured_log, eventually
from tests.simulators import SimulatedAuditLog

PER_MINUTE = 3


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def refusal_log(audit: SimulatedAuditLog, clock: Clock) -> Iterator[tuple[RefusalLog, Metrics]]:
    metrics = Metrics(CollectorRegistry())
    clocks = (lambda: datetime.now(UTC), clock)
    made = RefusalLog(audit, metrics, logs.get("test"), PER_MINUTE, clocks)
    try:
        yield made, metrics
    finally:
        made.close()


def records(audit: SimulatedAuditLog, code: str) -> list[AuditEntry]:
    return [entry for entry in audit.entries if entry.error_code == code]


def until(condition: Callable[[], object]) -> None:
    """Wait for the writer."""
    eventually(lambda: bool(condition()))


def test_a_refusal_is_a_record() -> None:
    """With its code, whence it came, and the request it answers."""
    audit = SimulatedAuditLog()
    with refusal_log(audit, Clock()) as (log, metrics):
        log.add(Refusal("token_expired", "192.0.2.1", "request-1"))
        until(lambda: audit.entries)
    (entry,) = audit.entries
    assert (entry.operation, entry.outcome, entry.error_code) == ("authenticate", "refused", "token_expired")
    assert (entry.entrance, entry.channel, entry.message_id) == ("http", "192.0.2.1", "request-1")
    assert metrics.registry.get_sample_value("signer_http_refused_credentials_total", {"code": "token_expired"}) == 1


def test_a_flood_is_counted() -> None:
    """So many of one peer, ten times as many of all; one record tells how many more there were; then it begins anew."""
    audit, clock = SimulatedAuditLog(), Clock()
    with refusal_log(audit, clock) as (log, metrics):
        for _ in range(100):
            log.add(Refusal("flood", "192.0.2.1"))
        for number in range(1000):
            log.add(Refusal("storm", f"198.51.100.{number}"))
        until(lambda: len(audit.entries) == PER_MINUTE * 10)
        assert len(records(audit, "flood")) == PER_MINUTE
        clock.now_s += WINDOW_S
        log.add(Refusal("nudge", "203.0.113.1"))  # its record may not be written any more, but the window ends
        until(lambda: [entry for entry in audit.entries if entry.channel is None])
        log.add(Refusal("flood", "192.0.2.1"))
        until(lambda: len(records(audit, "flood")) == PER_MINUTE + 2)
    details = {entry.error_code: entry.detail for entry in audit.entries if entry.channel is None}
    assert details["flood"] == "97 more refusals with this code, not recorded one by one"
    assert details["storm"] == f"{1000 - 9 * PER_MINUTE} more refusals with this code, not recorded one by one"
    assert metrics.registry.get_sample_value("signer_http_refused_credentials_total", {"code": "storm"}) == 1000


def test_what_audit_did_not_take_is_told_later() -> None:
    """Nobody was let in, so nothing is withheld; but nothing is forgotten either."""
    audit, clock = SimulatedAuditLog(), Clock()
    audit.fail_next(AuditUnavailableError("disk full"))
    with refusal_log(audit, clock) as (log, _):
        log.add(Refusal("token_expired", "192.0.2.1"))
    assert [entry.detail for entry in audit.entries] == ["1 more refusals with this code, not recorded one by one"]


@pytest.mark.parametrize(
    "noise", [Refusal("credentials_missing", "203.0.113."), Refusal("not_authorised", None, "", "jwt:iss#")]
)
def test_no_noise_hides_a_killed_caller(noise: Refusal) -> None:
    """Neither of those who prove nothing, nor of strangers of many names; what is beyond its share is told by name."""
    audit = SimulatedAuditLog()
    with refusal_log(audit, Clock()) as (log, metrics):
        for number in range(20 * PER_MINUTE):
            caller = None if noise.caller is None else f"{noise.caller}{number}"
            log.add(replace(noise, peer=f"{noise.peer}{number}", caller=caller))
        for _ in range(PER_MINUTE + 2):
            log.add(Refusal("caller_killed", "10.0.0.1", "request-1", caller="spiffe://bank/stolen"))
    found = [(entry.operation, entry.caller, entry.detail) for entry in records(audit, "caller_killed")]
    assert found[:-1] == [("admit", "spiffe://bank/stolen", None)] * PER_MINUTE
    assert found[-1] == ("admit", "spiffe://bank/stolen", "2 more refusals with this code, not recorded one by one")
    assert (
        metrics.registry.get_sample_value("signer_policy_refusals_total", {"code": "caller_killed"}) == PER_MINUTE + 2
    )


def test_a_caller_that_audit_did_not_take_is_told_by_name() -> None:
    """The minute's record has the name that the lost one had."""
    audit = SimulatedAuditLog()
    audit.fail_next(AuditUnavailableError("disk full"))
    with refusal_log(audit, Clock()) as (log, _):
        log.add(Refusal("caller_killed", "10.0.0.1", caller="spiffe://bank/stolen"))
    assert [(entry.caller, (entry.detail or "")[:6]) for entry in audit.entries] == [("spiffe://bank/stolen", "1 more")]


def test_closing_writes_what_was_noted() -> None:
    """Up to the last one, and what was too much."""
    audit = SimulatedAuditLog()
    with refusal_log(audit, Clock()) as (log, _):
        for _ in range(PER_MINUTE + 2):
            log.add(Refusal("late", "192.0.2.1"))
    assert len(audit.entries) == PER_MINUTE + 1


def test_the_log_is_bounded_too() -> None:
    """One line for each record, and none for what is counted."""
    audit = SimulatedAuditLog()
    with captured_log() as written, refusal_log(audit, Clock()) as (log, _):
        for _ in range(50):
            log.add(Refusal("late", "192.0.2.1"))
    assert written.getvalue().count("authentication.refused") == PER_MINUTE
