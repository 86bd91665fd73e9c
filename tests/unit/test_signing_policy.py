"""The core asks the policy once for what came in together, and the kill switch until the very last moment."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from signer.authority import Authority
from signer.deadlines import Deadline
from signer.metrics import Stopwatch
from signer.policy import Kills
from signer.policy_file import parse_policy
from signer.ports import Origin, SignTask
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused, Signed
from tests.simulators import SimulatedAuditLog, SimulatedKeyRing, SimulatedLedger, Simulation
from tests.unit.policies import BANK, KILL, POLICY, QUEUE, asked

KILLED = Kills(keys={"settlement": KILL})


@pytest.fixture
def simulation() -> Simulation:
    """A service under the policy file of the tests; the clock of its limits stands still."""
    authority = Authority(parse_policy(POLICY.encode()), lambda: 0.0)
    return Simulation(SimulatedKeyRing("settlement", "payout"), SimulatedLedger(), SimulatedAuditLog(), authority)


def sign(
    simulation: Simulation, requests: Sequence[SigningRequest], caller: str = QUEUE, *, whole: bool = False
) -> list[Outcome]:
    """Ask as `caller`."""
    watch = Stopwatch(simulation.metrics, "http")
    origin = Origin("http", caller, "192.0.2.1", "request-1")
    return simulation.service.sign_many(requests, origin, Deadline.after(60), watch, all_or_nothing=whole)


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    """How each ended."""
    return [outcome.error.code if isinstance(outcome, Refused) else "signed" for outcome in outcomes]


def batch(count: int) -> list[SigningRequest]:
    """So many transactions."""
    return [asked(number=number) for number in range(count)]


class KillsInTheMiddle:
    """Turns the kill switch when the HSM has signed `after` of them."""

    def __init__(self, simulation: Simulation, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        real = simulation.key_ring.sign

        def sign(tasks: Sequence[SignTask], deadline: Deadline, **how: Any) -> list[Any]:
            first = real(tasks[:after], deadline, **how)
            simulation.authority.replace(replace(simulation.authority.current(), kills=KILLED))
            return [*first, *real(tasks[after:], deadline, **how)]

        monkeypatch.setattr(simulation.key_ring, "sign", sign)


def test_what_came_in_before_the_kill_is_not_signed_after_it(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch under way, what has not reached C_Sign yet is refused with the key's code, and audited."""
    KillsInTheMiddle(simulation, 2, monkeypatch)
    assert codes(sign(simulation, batch(5))) == ["signed", "signed", "key_killed", "key_killed", "key_killed"]
    assert len(simulation.key_ring.signed) == 2
    assert [entry.error_code for entry in simulation.audit.entries] == [None, None, *["key_killed"] * 3]


def test_a_killed_key_refuses_replays_too(simulation: Simulation) -> None:
    """What was signed before does not come out while the key is killed; revived, it is the same as before."""
    (first,) = sign(simulation, batch(1))
    free = simulation.authority.current()
    simulation.authority.replace(replace(free, kills=KILLED))
    assert codes(sign(simulation, batch(1))) == ["key_killed"]
    simulation.authority.replace(free)
    (again,) = sign(simulation, batch(1))
    assert isinstance(first, Signed)
    assert isinstance(again, Signed)
    assert again.signature == first.signature


def test_a_change_of_policy_does_not_split_a_batch(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy changes after the first transaction was looked at; all of them are decided by the one before."""
    before = simulation.authority.current()
    real = type(before).authorise

    def authorise(policy: Any, caller: str, request: SigningRequest) -> None:
        simulation.authority.replace(parse_policy(b'schema = "signer-policy/1"'))
        real(policy, caller, request)

    monkeypatch.setattr(type(before), "authorise", authorise)
    assert codes(sign(simulation, batch(5))) == ["signed"] * 5
    assert codes(sign(simulation, batch(5))) == ["not_authorised"] * 5


def test_more_at_once_than_granted_is_refused_whole(simulation: Simulation) -> None:
    """The bank may bring three; nothing of four is signed or counted."""
    assert codes(sign(simulation, batch(4), BANK)) == ["too_many_transactions"] * 4
    assert codes(sign(simulation, batch(3), BANK)) == ["signed"] * 3


def test_more_in_a_second_than_granted_is_refused_for_now(simulation: Simulation) -> None:
    """Four at once, then two a second: the fifth call finds nothing left, and is refused, not signed."""
    for number in range(4):
        assert codes(sign(simulation, [asked(number=number)], BANK)) == ["signed"]
    (outcome,) = sign(simulation, [asked(number=9)], BANK)
    assert isinstance(outcome, Refused)
    assert (outcome.error.code, outcome.error.retryable) == ("rate_limited", True)
    assert outcome.error.retry_after_s == pytest.approx(0.5)
    assert len(simulation.key_ring.signed) == 4
    assert simulation.audit.entries[-1].error_code == "rate_limited"


def test_what_is_refused_anyway_costs_nothing_of_the_limit(simulation: Simulation) -> None:
    """Refusals, and whole batches that one refusal stops, leave the caller its share."""
    for _ in range(20):
        assert codes(sign(simulation, [asked("payout")], BANK)) == ["not_authorised"]
        assert "batch_abandoned" in codes(sign(simulation, [asked(), asked("payout")], BANK, whole=True))
    assert codes(sign(simulation, batch(3), BANK)) == ["signed"] * 3
