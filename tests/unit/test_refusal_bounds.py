"""Refusals by the policy have records up to a rate, and are counted and told of beyond it; nothing else is."""

from collections import Counter
from dataclasses import replace
from uuid import UUID

import pytest

from signer.authority import Authority
from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, ConflictError, KeyKilledError, NotAuthorisedError, UnavailableError
from signer.inquiries import Search
from signer.metrics import Stopwatch
from signer.policy_file import parse_policy
from signer.ports import AuditEntry, Origin
from signer.refusal_bounds import WINDOW_S, RefusalBounds
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused, Signed
from tests.simulators import SimulatedAuditLog, SimulatedKeyRing, SimulatedLedger, Simulation
from tests.unit.policies import BANK, POLICY, QUEUE, asked

PER_MINUTE = 3
NO = NotAuthorisedError("no")
NOW = "2028-03-08T12:00:00.000000Z"


class Clock:
    """Goes on when it is told to."""

    now_s = 0.0

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now_s


class Bounded:
    """A service under the policy of the tests, with few records a minute."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.counted: Counter[str] = Counter()
        self.bounds = RefusalBounds(self.clock, PER_MINUTE, lambda code: self.counted.update([code]))
        authority = Authority(parse_policy(POLICY.encode()), self.clock, self.bounds)
        key_ring = SimulatedKeyRing("settlement", "payout")
        self.simulation = Simulation(key_ring, SimulatedLedger(), SimulatedAuditLog(), authority)

    @property
    def codes(self) -> list[str | None]:
        """What is on record."""
        return [entry.error_code for entry in self.simulation.audit.entries]

    def sign(self, *requests: SigningRequest, caller: str = "stranger", within_s: float = 60) -> list[Outcome]:
        """Ask."""
        watch = Stopwatch(self.simulation.metrics, "http")
        return self.simulation.service.sign_many(requests, origin(caller), Deadline.after(within_s), watch)


def origin(caller: str) -> Origin:
    """Somebody."""
    return Origin("http", caller, "192.0.2.1", "request-1")


@pytest.fixture
def bounded() -> Bounded:
    """A service that nobody has asked yet."""
    return Bounded()


def test_a_call_that_is_refused_whole_has_one_record(bounded: Bounded) -> None:
    """With the number of its transactions, and what they have in common; each outcome names it."""
    outcomes = bounded.sign(*(asked(number=number) for number in range(100)))
    (entry,) = bounded.simulation.audit.entries
    assert (entry.operation, entry.error_code, entry.caller) == ("sign", "not_authorised", "stranger")
    assert (entry.key_alias, entry.transaction_id, entry.digest) == ("settlement", None, None)
    assert entry.detail == "100 transactions"
    assert {outcome.audit_id for outcome in outcomes if isinstance(outcome, Refused)} == {str(UUID(int=0))}
    counted = bounded.simulation.metrics.registry.get_sample_value(
        "signer_signatures_total", {"key": "settlement", "entrance": "http", "outcome": "refused"}
    )
    assert counted == 100


def test_so_does_a_dry_run(bounded: Bounded) -> None:
    """It is refused for the same reason."""
    requests = [asked(number=number) for number in range(100)]
    assert len(bounded.simulation.rehearsal.rehearse(requests, origin("stranger"))) == 100
    (entry,) = bounded.simulation.audit.entries
    assert (entry.operation, entry.error_code, entry.detail) == ("dry_run", "not_authorised", "100 transactions")


def test_one_reason_among_others_is_on_record_for_itself(bounded: Bounded) -> None:
    """The other is signed."""
    bounded.sign(asked(number=1), asked("payout", number=2), caller=QUEUE)
    assert [(entry.outcome, entry.detail) for entry in bounded.simulation.audit.entries] == [
        ("signed", None),
        ("refused", None),
    ]


def test_a_flood_is_counted(bounded: Bounded) -> None:
    """Signing, trying, verifying and searching count together; who is refused then hears why, without a record."""
    for number in range(20):
        (outcome,) = bounded.sign(asked(number=number))
        assert isinstance(outcome, Refused)
        assert (outcome.error.code, outcome.audit_id is not None) == ("not_authorised", number == 0)
        (rehearsed,) = bounded.simulation.rehearsal.rehearse([asked(number=number)], origin("stranger"))
        assert isinstance(rehearsed, Refused)
        assert isinstance(bounded.simulation.inquiries.search(Search("T"), origin("stranger")), Refused)
        assert isinstance(bounded.simulation.inquiries.read_key("settlement", origin("stranger")), Refused)
    assert len(bounded.simulation.audit.entries) == PER_MINUTE
    assert bounded.counted == {"not_authorised": 80}


def test_what_was_too_much_is_told_when_the_minute_is_over(bounded: Bounded) -> None:
    """Once, by caller and code; and then there is room again."""
    for _ in range(5):
        bounded.bounds.admit("a", NO)
    bounded.bounds.admit("a", KeyKilledError("killed"))
    assert bounded.bounds.take_untold(NOW) == []
    bounded.clock.now_s += WINDOW_S
    assert bounded.bounds.admit("a", NO)
    told = bounded.bounds.take_untold(NOW)
    assert [(entry.operation, entry.outcome, entry.caller, entry.error_code) for entry in told] == [
        ("authorise", "refused", "a", "not_authorised"),
        ("authorise", "refused", "a", "key_killed"),
    ]
    assert [entry.detail for entry in told] == [
        "2 more refusals with this code, not recorded one by one",
        "1 more refusals with this code, not recorded one by one",
    ]
    assert bounded.bounds.take_untold(NOW) == []


def test_many_callers_are_bounded_together(bounded: Bounded) -> None:
    """Nobody gets around it by names: ten times as many records, and one that counts for all the rest."""
    admitted = [bounded.bounds.admit(f"caller-{number}", NO) for number in range(1000)]
    bounded.clock.now_s += WINDOW_S
    (told,) = bounded.bounds.take_untold(NOW)
    assert sum(admitted) == 10 * PER_MINUTE
    assert (told.caller, (told.detail or "").split()[0]) == (None, str(1000 - 10 * PER_MINUTE))


def test_what_the_audit_log_did_not_take_is_told(bounded: Bounded) -> None:
    """The caller heard why, or that there is no log now: the minute's record has each, a dry run and a search too."""
    bounded.simulation.audit.fail_next(AuditUnavailableError("disk full"), times=4)
    for number in range(2):
        (outcome,) = bounded.sign(asked(number=number))
        assert isinstance(outcome, Refused)
        assert (outcome.error.code, outcome.audit_id) == ("not_authorised", None)
    with pytest.raises(AuditUnavailableError):
        bounded.simulation.rehearsal.rehearse([asked()], origin("stranger"))
    with pytest.raises(AuditUnavailableError):
        bounded.simulation.inquiries.search(Search("T"), origin("other"))
    bounded.sign(asked())
    told = bounded.bounds.take_untold(NOW, closing=True)
    assert {(entry.caller, entry.error_code): (entry.detail or "").split()[0] for entry in told} == {
        ("stranger", "not_authorised"): "4",
        ("other", "not_authorised"): "1",
    }


def test_so_is_a_conflict_that_it_did_not_take(bounded: Bounded) -> None:
    """And that a limit was reached; what was signed is withheld, what failed is asked for again."""
    bounded.sign(asked(), caller=BANK)
    audit = bounded.simulation.audit
    audit.fail_next(AuditUnavailableError("disk full"), times=3)
    bounded.sign(replace(asked(), digest=b"x" * 32), caller=BANK)
    bounded.sign(*(asked(number=number) for number in (2, 3, 4)), caller=BANK)
    bounded.sign(asked(number=5), caller=BANK)
    told = bounded.bounds.take_untold(NOW, closing=True)
    assert [(entry.caller, entry.error_code) for entry in told] == [
        (BANK, "transaction_conflict"),
        (BANK, "rate_limited"),
    ]


def test_names_are_not_kept_without_end(bounded: Bounded) -> None:
    """However many come while the audit log takes nothing: each is counted."""
    stranger = AuditEntry(NOW, "sign", "refused", "not_authorised")
    bounded.bounds.count_unrecorded(replace(stranger, caller=f"caller-{number}") for number in range(1000))
    told = bounded.bounds.take_untold(NOW, closing=True)
    assert len(told) == 10 * PER_MINUTE + 1
    assert sum(int((entry.detail or "").split()[0]) for entry in told) == 1000


def test_everything_else_keeps_its_records(bounded: Bounded) -> None:
    """A conflict is one each, whoever has been refused how often; so is what was signed, and what failed for now."""
    (first,) = bounded.sign(asked(), caller=QUEUE)
    assert isinstance(first, Signed)
    for number in range(20):
        bounded.sign(asked("payout", number=number), caller=QUEUE)
    before = len(bounded.codes)
    other = replace(asked(), digest=b"x" * 32)
    bounded.sign(*[other] * 20, caller=QUEUE)
    assert bounded.codes[before:] == ["transaction_conflict"] * 20
    assert all(bounded.bounds.admit(QUEUE, error) for error in [ConflictError("x"), UnavailableError("x")] * 20)


def test_who_is_beyond_a_limit_fills_nothing_either(bounded: Bounded) -> None:
    """Four at once are granted; what comes then is refused for now, with so many records as fit."""
    for number in range(50):
        bounded.sign(asked(number=number), caller=BANK)
    assert Counter(bounded.codes) == {None: 4, "rate_limited": PER_MINUTE}


def test_what_comes_too_late_counts_towards_no_limit(bounded: Bounded) -> None:
    """Nothing of it was to be signed; whoever asks again in time has all of its share."""
    for number in range(10):
        (late,) = bounded.sign(asked(number=number), caller=BANK, within_s=0)
        assert isinstance(late, Refused)
        assert late.error.code == "deadline_exceeded"
    outcomes = [bounded.sign(asked(number=number), caller=BANK)[0] for number in range(4)]
    assert all(isinstance(outcome, Signed) for outcome in outcomes)
