"""The core asks the policy itself, whatever was asked at the head of the request: a kill may come between."""

import pytest

from signer.authority import Authority
from signer.inquiries import Search
from signer.policy import AUDITOR, CallerPolicy, Grant, Kills, Policy
from signer.ports import Origin
from signer.work import Refused
from tests.simulators import SimulatedAuditLog, SimulatedKeyRing, SimulatedLedger, Simulation
from tests.unit.policies import BANK, KILL

ORIGIN = Origin("http", BANK, "192.0.2.1", "request-1")
KILLED = Kills(callers={BANK: KILL})


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy({}), "not_authorised"),
        (Policy({BANK: CallerPolicy({"settlement": Grant()})}, KILLED), "caller_killed"),
        (Policy({BANK: CallerPolicy({}, roles=frozenset({AUDITOR}))}, KILLED), "caller_killed"),
    ],
)
def test_who_is_not_to_be_heard_is_told_nothing(policy: Policy, code: str) -> None:
    """Of no key and no signature; each is on record."""
    authority = Authority(policy, lambda: 0.0)
    simulation = Simulation(SimulatedKeyRing("settlement"), SimulatedLedger(), SimulatedAuditLog(), authority)
    inquiries = simulation.inquiries
    answers = [
        inquiries.list_keys(ORIGIN),
        inquiries.read_key("settlement", ORIGIN),
        inquiries.search(Search("TXN-1"), ORIGIN),
    ]
    assert [answer.error.code for answer in answers if isinstance(answer, Refused)] == [code] * 3
    assert [(entry.operation, entry.error_code, entry.caller) for entry in simulation.audit.entries] == [
        ("read_keys", code, BANK),
        ("read_keys", code, BANK),
        ("search", code, BANK),
    ]
