"""What every ledger must do, in a file or in a table: the sentences of `SignOnceLedger`, one after another."""

import functools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from signer.demo.stack import Emulator
from signer.errors import ClaimInProgressError, ClaimLostError, ConflictError
from signer.ports import Claimed
from tests.integration import ledgers
from tests.integration.ledgers import Ledger, Place, in_table, on_disk
from tests.unit.stores import LEASE_S, Clock, claim, in_threads, signature


@pytest.fixture(params=["sqlite", "dynamodb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return on_disk(tmp_path / "ledger" / "ledger.sqlite")
    emulator: Emulator = request.getfixturevalue("emulator")
    return in_table(emulator)


@pytest.fixture
def clock(place: Place) -> Clock:
    return place.clock


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with closing(place.open()) as opened:
        yield opened


def granted(ledger: Ledger, transaction_id: str) -> Claimed:
    """Claim a transaction that is free."""
    return ledgers.granted(ledger, claim(transaction_id))


def test_a_free_transaction_is_claimed_once_by_sixteen_threads(ledger: Ledger) -> None:
    """Of sixteen claims at one moment exactly one is granted; the others are told that it is in progress."""
    for number in range(20):
        answers = [
            answer
            for answers in in_threads([functools.partial(ledger.claim, [claim(f"T-{number}")])] * 16)
            for answer in (answers if isinstance(answers, list) else [answers])
        ]
        assert sum(isinstance(answer, Claimed) for answer in answers) == 1
        assert sum(isinstance(answer, ClaimInProgressError) for answer in answers) == 15


def test_one_call_cannot_claim_a_transaction_twice(ledger: Ledger) -> None:
    """The second of two equal claims in one batch is in progress already."""
    first, second = ledger.claim([claim("T"), claim("T")])
    assert isinstance(first, Claimed)
    assert isinstance(second, ClaimInProgressError)


def test_each_key_has_transactions_of_its_own(ledger: Ledger) -> None:
    """The same transaction id under another key alias is another transaction."""
    one = claim("T")
    answers = ledger.claim([one, type(one)("other", "T", b"\1" * 32, one.algorithm)])
    assert all(isinstance(answer, Claimed) for answer in answers)


def test_another_digest_or_algorithm_is_a_conflict_for_ever(place: Place, clock: Clock) -> None:
    """While the lease runs, after it, after completion, after release and after a restart, the binding holds."""

    def is_bound(ledger: Ledger) -> bool:
        answers = ledger.claim([claim("T", b"other"), claim("T", algorithm="RSASSA_PKCS1_V1_5_SHA_256")])
        return all(isinstance(answer, ConflictError) for answer in answers)

    with closing(place.open()) as ledger:
        claimed = granted(ledger, "T")
        assert is_bound(ledger)
        ledger.release([claimed])
        assert is_bound(ledger)
        claimed = granted(ledger, "T")
        clock.now_s += LEASE_S
        assert is_bound(ledger)
    with closing(place.open()) as ledger:
        assert is_bound(ledger)
        claimed = granted(ledger, "T")
        assert ledger.complete([(claimed, signature("S"))]) == [None]
        assert is_bound(ledger)
    with closing(place.open()) as ledger:
        assert is_bound(ledger)


def test_a_completed_transaction_gives_its_signature_again(place: Place, clock: Clock) -> None:
    """The same claim is answered with an equal signature, also after its lease and after a restart."""
    with closing(place.open()) as ledger:
        ledger.complete([(granted(ledger, "T"), signature("S"))])
        assert ledger.claim([claim("T")]) == [signature("S")]
        clock.now_s += 10 * LEASE_S
        assert ledger.claim([claim("T")]) == [signature("S")]
    with closing(place.open()) as ledger:
        assert ledger.claim([claim("T")]) == [signature("S")]


def test_a_claim_is_taken_over_after_its_lease_and_not_before(ledger: Ledger, clock: Clock) -> None:
    """A claim that nobody completed is stuck for no longer than its lease."""
    granted(ledger, "T")
    clock.now_s += LEASE_S - 0.001
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
    clock.now_s += 0.001
    granted(ledger, "T")
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)


def test_a_slow_first_owner_is_fenced_off(ledger: Ledger, clock: Clock) -> None:
    """After a takeover the first owner can neither complete, nor end the lease, nor overwrite the signature."""
    slow = granted(ledger, "T")
    clock.now_s += LEASE_S
    second = granted(ledger, "T")
    assert [type(answer) for answer in ledger.complete([(slow, signature("slow"))])] == [ClaimLostError]
    ledger.release([slow])
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
    assert ledger.complete([(second, signature("second"))]) == [None]
    assert [type(answer) for answer in ledger.complete([(slow, signature("slow"))])] == [ClaimLostError]
    assert ledger.claim([claim("T")]) == [signature("second")]


def test_a_kept_signature_is_never_overwritten(ledger: Ledger) -> None:
    """Even its own owner completes a transaction once only; the others of the batch are not affected."""
    first, other = granted(ledger, "T"), granted(ledger, "U")
    assert ledger.complete([(first, signature("first"))]) == [None]
    answers = ledger.complete([(first, signature("again")), (other, signature("other"))])
    assert [type(answer) for answer in answers] == [ClaimLostError, type(None)]
    ledger.release([first])
    assert ledger.claim([claim("T"), claim("U")]) == [signature("first"), signature("other")]


def test_a_released_claim_can_be_taken_at_once(ledger: Ledger) -> None:
    """Whoever gives up ends the lease; the next claim need not wait and gets a token of its own."""
    first = granted(ledger, "T")
    ledger.release([first])
    second = granted(ledger, "T")
    assert second.token != first.token
    assert [type(answer) for answer in ledger.complete([(first, signature("S"))])] == [ClaimLostError]


def test_leases_of_a_dead_process_end_with_it(tmp_path: Path) -> None:
    """Since nobody else can hold the file, a new process takes unfinished claims over without waiting."""
    place = on_disk(tmp_path / "ledger.sqlite")
    with closing(place.open()) as ledger:
        first = granted(ledger, "T")
    with closing(place.open()) as ledger:
        granted(ledger, "T")
        assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
        assert [type(answer) for answer in ledger.complete([(first, signature("S"))])] == [ClaimLostError]


def conflicts(ledger: Ledger, transaction_id: str) -> bool:
    """Tell whether the transaction is bound to what `claim` gives it."""
    return isinstance(ledger.claim([claim(transaction_id, b"other")])[0], ConflictError)


def test_a_withdrawn_claim_binds_nothing(ledger: Ledger) -> None:
    """What a claim bound for the first time, and was never shown to the HSM, is free for another digest."""
    ledger.withdraw([granted(ledger, "T")])
    assert isinstance(ledger.claim([claim("T", b"other")])[0], Claimed)


def test_only_who_bound_a_transaction_may_unbind_it(ledger: Ledger, clock: Clock) -> None:
    """A claim that was taken over stays bound, whoever withdraws it: its first owner may have shown it to the HSM."""
    first = granted(ledger, "T")
    clock.now_s += LEASE_S
    second = granted(ledger, "T")
    ledger.withdraw([first])
    assert conflicts(ledger, "T")
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
    ledger.withdraw([second])
    assert conflicts(ledger, "T")


def test_a_claim_that_was_released_first_is_not_withdrawn_by_the_next(ledger: Ledger) -> None:
    """A failed attempt binds; the second try of a batch that is abandoned does not change that."""
    ledger.release([granted(ledger, "T")])
    ledger.withdraw([granted(ledger, "T")])
    assert conflicts(ledger, "T")


def test_a_claim_of_an_earlier_process_is_not_withdrawn(place: Place, clock: Clock) -> None:
    """What a dead process bound, it may have signed."""
    with closing(place.open()) as ledger:
        granted(ledger, "T")
    clock.now_s += LEASE_S
    with closing(place.open()) as ledger:
        ledger.withdraw([granted(ledger, "T")])
        assert conflicts(ledger, "T")


def test_a_kept_signature_is_not_withdrawn(ledger: Ledger) -> None:
    """Withdrawing after completion changes nothing."""
    claimed = granted(ledger, "T")
    ledger.complete([(claimed, signature("S"))])
    ledger.withdraw([claimed])
    assert ledger.claim([claim("T")]) == [signature("S")]


@pytest.mark.parametrize("bound_with", ["elder", None])
def test_who_takes_a_claim_over_learns_its_version(place: Place, clock: Clock, bound_with: str | None) -> None:
    """The key label that a transaction was bound with is told to whoever claims it later, with whatever label."""
    with closing(place.open()) as ledger:
        (first,) = ledger.claim([claim("T", key_label=bound_with)])
        assert isinstance(first, Claimed)
        assert (first.is_first, first.claim.key_label) == (True, bound_with)
        ledger.release([first])
        (second,) = ledger.claim([claim("T", key_label="younger")])
        assert isinstance(second, Claimed)
        assert (second.is_first, second.claim.key_label) == (False, bound_with)
    clock.now_s += LEASE_S
    with closing(place.open()) as ledger:
        (third,) = ledger.claim([claim("T", key_label="younger")])
        assert isinstance(third, Claimed)
        assert third.claim.key_label == bound_with
        assert ledger.complete([(third, signature("S"))]) == [None]
    with closing(place.open()) as ledger:
        assert ledger.claim([claim("T", key_label="other")]) == [signature("S")]


def test_the_label_of_a_signature_is_kept_whatever_the_claim_said(ledger: Ledger) -> None:
    """Signed with the version of the claim or with another one, the signature comes back as it was."""
    for transaction_id, key_label in (("T", "label"), ("U", "another")):
        (claimed,) = ledger.claim([claim(transaction_id, key_label=key_label)])
        assert isinstance(claimed, Claimed)
        ledger.complete([(claimed, signature("S"))])
        assert ledger.claim([claim(transaction_id)]) == [signature("S")]
