"""What comes in together, or again, is signed with the version of the key in force when it was claimed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, LedgerUnavailableError
from signer.metrics import Stopwatch
from signer.signing import Call
from signer.transactions import SigningRequest
from signer.work import Outcome, Signed
from tests.simulators import SimulatedLedger, SimulatedVersion, Simulation, simulate
from tests.unit.test_signing import CALLER, ORIGIN, codes, request

INSTANT = datetime(2028, 3, 8, 12, tzinfo=UTC)
ELDER, YOUNGER = "settlement-key-2028", "settlement-key-2029"


@pytest.fixture
def simulation() -> Simulation:
    """A service with one key, rotated at the instant."""
    made = simulate({"settlement": frozenset({CALLER})})
    made.key_ring.add_version("settlement", YOUNGER, INSTANT, elder_until=INSTANT + timedelta(days=90))
    return made


def requests(count: int, start: int = 0) -> list[SigningRequest]:
    """So many transactions."""
    return [request(number) for number in range(start, start + count)]


def sign(simulation: Simulation, wanted: Sequence[SigningRequest], *, whole: bool = True) -> list[Outcome]:
    """Bring a batch in."""
    watch = Stopwatch(simulation.metrics, "sqs")
    return simulation.service.sign_many(wanted, ORIGIN, Deadline.after(60), watch, all_or_nothing=whole)


def labels(outcomes: Sequence[Outcome]) -> list[str]:
    """Which version signed each."""
    return [outcome.signature.key_label for outcome in outcomes if isinstance(outcome, Signed)]


class Watch:
    """A wall clock that a test sets."""

    now = INSTANT - timedelta(seconds=1)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A second before the instant."""
    clock = Watch()
    monkeypatch.setattr(simulation.service, "_wall_clock", clock)
    return clock


class TickingClock:
    """Moves on by a second whenever somebody looks."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def test_a_batch_is_signed_with_one_version(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instant passes between two looks at the clock: the batch keeps the version it was claimed under."""
    clock = TickingClock(INSTANT - timedelta(seconds=1.5))
    monkeypatch.setattr(simulation.service, "_wall_clock", clock)
    outcomes = sign(simulation, requests(5))
    assert clock.now >= INSTANT
    assert {item.signature.key_label for item in outcomes if isinstance(item, Signed)} == {ELDER}
    assert {entry.claimed_at for entry in simulation.audit.entries} == {"2028-03-08T11:59:59.500000Z"}
    (later,) = sign(simulation, [request(9)])
    assert isinstance(later, Signed)
    assert later.signature.key_label == YOUNGER


def test_a_replay_after_the_rotation_is_the_signature_of_before(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the version that made it, in every member the same."""
    monkeypatch.setattr(simulation.service, "_wall_clock", lambda: INSTANT - timedelta(seconds=1))
    (first,) = sign(simulation, requests(1))
    monkeypatch.setattr(simulation.service, "_wall_clock", lambda: INSTANT + timedelta(days=1))
    (again,) = sign(simulation, requests(1))
    assert isinstance(first, Signed)
    assert isinstance(again, Signed)
    assert (again.signature, again.replayed) == (first.signature, True)
    assert again.signature.key_label == ELDER


def test_what_failed_before_the_rotation_is_signed_with_the_version_of_before(
    simulation: Simulation, clock: Watch
) -> None:
    """The HSM was away; the batch comes again after the instant, and is signed as it was claimed."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    assert codes(sign(simulation, requests(3))) == ["hsm_unavailable"] * 3
    clock.now = INSTANT + timedelta(minutes=1)
    assert labels(sign(simulation, requests(3))) == [ELDER] * 3
    assert {entry.key_label for entry in simulation.audit.of("sign")[3:]} == {ELDER}
    assert {entry.claimed_at for entry in simulation.audit.of("sign")[3:]} == {None}
    assert labels(sign(simulation, requests(1, start=9))) == [YOUNGER]


def test_a_crash_after_the_claim_does_not_split_a_batch(simulation: Simulation, clock: Watch) -> None:
    """Some were completed, some claimed only: after the instant the others join those that are signed already."""
    batch = requests(600)
    simulation.ledger.fail_next_complete(LedgerUnavailableError("died"), after=1)
    sign(simulation, batch)
    simulation.ledger.expire_leases()
    clock.now = INSTANT + timedelta(minutes=1)
    outcomes = sign(simulation, batch)
    assert codes(outcomes) == ["replayed"] * 500 + ["signed"] * 100
    assert set(labels(outcomes)) == {ELDER}


def test_a_crash_amid_the_claims_does_not_split_a_batch(simulation: Simulation, clock: Watch) -> None:
    """Half of it was claimed before the instant; the other half is claimed for the same version, and bound to it."""
    batch = requests(600)
    simulation.ledger.fail_next_claim(LedgerUnavailableError("died"), after=1)
    with dying(simulation.ledger):
        sign(simulation, batch)
    simulation.ledger.expire_leases()
    clock.now = INSTANT + timedelta(minutes=1)
    # It dies again, amid the results: what is left is bound to the version of what went out.
    simulation.ledger.fail_next_complete(LedgerUnavailableError("died"), after=1)
    sign(simulation, batch)
    simulation.ledger.expire_leases()
    outcomes = sign(simulation, batch)
    assert codes(outcomes) == ["replayed"] * 500 + ["signed"] * 100
    assert set(labels(outcomes)) == {ELDER}


@contextmanager
def dying(ledger: SimulatedLedger) -> Iterator[None]:
    """A process that died hands nothing back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "release", lambda _claims: None)
        patch.setattr(ledger, "withdraw", lambda _claims: None)
        yield


def test_each_batch_that_is_signed_with_others_has_a_version_of_its_own(simulation: Simulation, clock: Watch) -> None:
    """One that was claimed before the instant keeps to it as a whole; the one beside it has the version in force."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    sign(simulation, requests(1))
    clock.now = INSTANT + timedelta(minutes=1)
    watch = Stopwatch(simulation.metrics, "sqs")
    calls = [
        Call(batch, ORIGIN, Deadline.after(60), watch, all_or_nothing=True) for batch in (requests(2), requests(2, 7))
    ]
    old, new = simulation.service.sign_together(calls)
    assert (labels(old), labels(new)) == ([ELDER, ELDER], [YOUNGER, YOUNGER])


def test_single_transactions_keep_their_own_version(simulation: Simulation, clock: Watch) -> None:
    """Where each stands for itself, one that comes again keeps its version, and its neighbour has the one in force."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    sign(simulation, requests(1))
    clock.now = INSTANT
    assert labels(sign(simulation, requests(2), whole=False)) == [ELDER, YOUNGER]


@pytest.mark.parametrize("why", ["over", "not ready"])
def test_a_version_that_can_sign_no_more_is_not_kept(simulation: Simulation, clock: Watch, why: str) -> None:
    """Nothing was released with it; what comes again is signed with the one in force."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    sign(simulation, requests(2))
    clock.now = INSTANT + timedelta(days=90 if why == "over" else 1)
    if why == "not ready":
        version(simulation).not_ready = "gone"
    assert labels(sign(simulation, requests(2))) == [YOUNGER] * 2


def version(simulation: Simulation) -> SimulatedVersion:
    """The elder."""
    return simulation.key_ring._versions["settlement"][0]  # noqa: SLF001
