"""The core keeps its promises whatever its edges do: what leaves is authorised, claimed, verified, audited and kept."""

import base64
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from signer.deadlines import Deadline
from signer.errors import (
    AuditUnavailableError,
    HsmUnavailableError,
    LedgerUnavailableError,
    SignatureInvalidError,
    SignerError,
)
from signer.metrics import Stopwatch
from signer.ports import Origin, RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM, RSASSA_PSS_SHA_256, Algorithm, verifies
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused, Signed
from tests.simulators import Simulation, simulate

CALLER = "queue:settlement-inbound"
ORIGIN = Origin("sqs", CALLER, "settlement-inbound", "message-1", "BATCH-1")
STRANGER = Origin("http", "http:stranger", "127.0.0.1", "request-1")


def request(
    number: int, content: str = "", key: str = "settlement", algorithm: Algorithm = DEFAULT_ALGORITHM
) -> SigningRequest:
    """A transaction; the same number and content is the same transaction."""
    return SigningRequest(key, f"TXN-{number}", hashlib.sha256(f"{number}{content}".encode()).digest(), algorithm)


@pytest.fixture
def simulation() -> Simulation:
    """A service with one key that the queue may use."""
    return simulate({"settlement": frozenset({CALLER}), "payout": frozenset()})


def sign(
    simulation: Simulation, requests: Sequence[SigningRequest], origin: Origin = ORIGIN, *, whole: bool = False
) -> list[Outcome]:
    """Call the core as an entrance does."""
    watch = Stopwatch(simulation.metrics, origin.entrance)
    return simulation.service.sign_many(requests, origin, Deadline.after(60), watch, all_or_nothing=whole)


def codes(outcomes: Sequence[Outcome]) -> list[str]:
    """The error code of each outcome, or how it was signed."""
    return [
        outcome.error.code if isinstance(outcome, Refused) else ("replayed" if outcome.replayed else "signed")
        for outcome in outcomes
    ]


@pytest.mark.parametrize("algorithm", [DEFAULT_ALGORITHM, RSASSA_PSS_SHA_256], ids=lambda item: item.name)
def test_every_request_gets_its_own_signature_in_order(simulation: Simulation, algorithm: Algorithm) -> None:
    """Each outcome carries the signature over its own digest, and names key, fingerprint and audit id."""
    requests = [request(number, algorithm=algorithm) for number in range(20)]
    outcomes = sign(simulation, requests)
    key = simulation.key_ring.key("settlement")
    for wanted, outcome in zip(requests, outcomes, strict=True):
        assert isinstance(outcome, Signed)
        signature = outcome.signature
        assert verifies(key.public_key, algorithm, wanted.digest, signature.value_bytes())
        assert base64.b64decode(signature.digest) == wanted.digest
        assert (signature.key_label, signature.key_fingerprint) == (key.label, key.fingerprint)
    assert len({outcome.signature.audit_id for outcome in outcomes if isinstance(outcome, Signed)}) == 20


def test_the_same_content_again_is_the_recorded_signature(simulation: Simulation) -> None:
    """A replay is equal in every member, also under PSS, and the HSM is not asked again."""
    wanted = [request(1, algorithm=RSASSA_PSS_SHA_256)]
    (first,), (again,) = sign(simulation, wanted), sign(simulation, wanted)
    assert isinstance(first, Signed)
    assert isinstance(again, Signed)
    assert (first.replayed, again.replayed, again.signature) == (False, True, first.signature)
    assert len(simulation.key_ring.signed) == 1
    replay = simulation.audit.entries[-1]
    assert (replay.outcome, replay.replay_of) == ("replayed", first.signature.audit_id)


@pytest.mark.parametrize("second", [request(1, "changed"), request(1, algorithm=RSASSA_PSS_SHA_256)])
def test_one_transaction_is_never_signed_over_two_contents(simulation: Simulation, second: SigningRequest) -> None:
    """Other content, or another algorithm, is a conflict: the HSM is not asked, and the refusal is audited."""
    sign(simulation, [request(1)])
    assert codes(sign(simulation, [second])) == ["transaction_conflict"]
    assert len(simulation.key_ring.signed) == 1
    assert simulation.audit.entries[-1].error_code == "transaction_conflict"
    assert simulation.audit.entries[-1].detail == "security event"
    assert [entry.detail for entry in simulation.audit.entries[:-1]] == [None] * (len(simulation.audit.entries) - 1)
    counted = simulation.metrics.registry.get_sample_value(
        "signer_security_events_total", {"code": "transaction_conflict"}
    )
    assert counted == 1.0


def test_a_failed_attempt_still_binds_the_digest(simulation: Simulation) -> None:
    """Whether the HSM signed before it failed is unknown: other content stays refused, the same may be tried again."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    assert codes(sign(simulation, [request(1)])) == ["hsm_unavailable"]
    assert codes(sign(simulation, [request(1, "changed")])) == ["transaction_conflict"]
    assert codes(sign(simulation, [request(1)])) == ["signed"]


def test_nobody_signs_without_being_named(simulation: Simulation) -> None:
    """Default deny: a stranger, a key without callers and one that is not there are refused before any claim, alike."""
    assert codes(sign(simulation, [request(1)], STRANGER)) == ["not_authorised"]
    assert codes(sign(simulation, [request(2, key="payout")])) == ["not_authorised"]
    assert codes(sign(simulation, [request(3, key="nothing")])) == ["not_authorised"]
    assert simulation.ledger.bound == {}
    assert [entry.outcome for entry in simulation.audit.entries] == ["refused"] * 3


def test_nothing_is_released_without_its_audit_record(simulation: Simulation) -> None:
    """If the audit log cannot write, no signature is in the answer; the next attempt is served."""
    simulation.audit.fail_next(AuditUnavailableError("disk full"))
    assert codes(sign(simulation, [request(1), request(2)])) == ["audit_unavailable"] * 2
    assert simulation.audit.entries == []
    assert codes(sign(simulation, [request(1), request(2)])) == ["signed"] * 2


def test_a_replay_too_needs_its_audit_record(simulation: Simulation) -> None:
    """A recorded signature is not released either while the audit log cannot write."""
    sign(simulation, [request(1)])
    simulation.audit.fail_next(AuditUnavailableError("disk full"))
    assert codes(sign(simulation, [request(1)])) == ["audit_unavailable"]


def test_nothing_is_signed_without_a_claim(simulation: Simulation) -> None:
    """If the ledger cannot record the claim, the HSM is not asked."""
    simulation.ledger.fail_next_claim(LedgerUnavailableError("disk full"))
    assert codes(sign(simulation, [request(1)])) == ["ledger_unavailable"]
    assert simulation.key_ring.signed == []


def test_nothing_is_released_that_is_not_kept_for_replays(simulation: Simulation) -> None:
    """If the result cannot be recorded, it is withheld: a second delivery could not repeat it byte for byte."""
    simulation.ledger.fail_next_complete(LedgerUnavailableError("disk full"))
    assert codes(sign(simulation, [request(1)])) == ["ledger_unavailable"]
    assert codes(sign(simulation, [request(1)])) == ["signed"]


def test_a_lost_claim_releases_nothing(simulation: Simulation) -> None:
    """Who was too slow and lost the claim gets no signature; the new owner's is the one that is kept."""
    with simulation.key_ring.held() as held:
        slow: list[Outcome] = []
        owner = threading.Thread(target=lambda: slow.extend(sign(simulation, [request(1)])))
        owner.start()
        held.wait_for(1)
        assert codes(sign(simulation, [request(1)])) == ["transaction_in_progress"]
        simulation.ledger.expire_leases()
        successor: list[Outcome] = []
        other = threading.Thread(target=lambda: successor.extend(sign(simulation, [request(1)])))
        other.start()
        held.wait_for(2)
        held.let_go()
        owner.join(30)
        other.join(30)
    assert codes(slow) == ["claim_lost"]
    assert codes(successor) == ["signed"]


class Forger:
    """Spoils what a key ring signs, in one chosen way."""

    def __init__(self, simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
        real = simulation.key_ring.sign

        def forged(tasks: Sequence[SignTask], deadline: Deadline, **how: Any) -> list[RawSignature | SignerError]:
            answers = real(tasks, deadline, **how)
            return [self.spoil(task, answer) for task, answer in zip(tasks, answers, strict=True)]

        monkeypatch.setattr(simulation.key_ring, "sign", forged)

    def spoil(self, task: SignTask, answer: RawSignature | SignerError) -> RawSignature | SignerError:
        """Flip one bit of the signature of TXN-1's digest."""
        if task.digest == request(1).digest and isinstance(answer, RawSignature):
            return replace(answer, value=bytes([answer.value[0] ^ 1]) + answer.value[1:], sound=False)
        return answer


def test_a_wrong_signature_never_leaves(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flipped bit is withheld, counted and audited with what the HSM said; its siblings are not disturbed."""
    Forger(simulation, monkeypatch)
    outcomes = sign(simulation, [request(0), request(1), request(2)])
    assert codes(outcomes) == ["signed", SignatureInvalidError.code, "signed"]
    entry = simulation.audit.entries[1]
    assert (entry.outcome, entry.error_code, entry.session_handle) == ("failed", "signature_invalid", 11)
    (family,) = simulation.metrics.verification_failures.collect()
    assert family.samples[0].value == 1


def test_the_signature_of_another_transaction_never_leaves(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound as they are, answers in another order than the questions are withheld."""
    real = simulation.key_ring.sign
    monkeypatch.setattr(simulation.key_ring, "sign", lambda tasks, deadline, **how: real(tasks, deadline, **how)[::-1])
    outcomes = sign(simulation, [request(0), request(1), request(2)])
    assert codes(outcomes) == [SignatureInvalidError.code, "signed", SignatureInvalidError.code]


def test_a_batch_is_not_signed_once_one_of_it_is_refused(simulation: Simulation) -> None:
    """All or nothing: a conflict stops the siblings before the HSM is asked; they may be signed in another batch."""
    sign(simulation, [request(1)])
    outcomes = sign(simulation, [request(0), request(1, "changed"), request(2)], whole=True)
    assert codes(outcomes) == ["batch_abandoned", "transaction_conflict", "batch_abandoned"]
    assert len(simulation.key_ring.signed) == 1
    assert codes(sign(simulation, [request(0), request(2)], whole=True)) == ["signed", "signed"]


def test_an_abandoned_batch_binds_nothing_it_has_not_shown_to_the_hsm(simulation: Simulation) -> None:
    """A conflict unbinds the siblings' digests: corrected, they may be signed under the same transaction id."""
    sign(simulation, [request(1)])
    sign(simulation, [request(0), request(1, "changed"), request(2)], whole=True)
    assert set(simulation.ledger.bound) == {("settlement", "TXN-1")}
    assert codes(sign(simulation, [request(0, "corrected"), request(2)], whole=True)) == ["signed", "signed"]


def test_an_abandoned_batch_unbinds_no_digest_of_an_earlier_attempt(simulation: Simulation) -> None:
    """A sibling that was claimed before, and may have been signed then, stays bound; so does one that is kept."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    sign(simulation, [request(0)])
    sign(simulation, [request(1)])
    sign(simulation, [request(2)])
    assert codes(sign(simulation, [request(0), request(1, "changed"), request(2)], whole=True)) == [
        "batch_abandoned",
        "transaction_conflict",
        "batch_abandoned",
    ]
    assert codes(sign(simulation, [request(0, "changed"), request(2, "changed")])) == ["transaction_conflict"] * 2
    assert codes(sign(simulation, [request(0), request(2)])) == ["signed", "replayed"]


def test_a_batch_whose_signing_failed_stays_bound(simulation: Simulation) -> None:
    """Once the HSM was asked, nothing is withdrawn: all or nothing concerns what happens before."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    sign(simulation, [request(0), request(1)], whole=True)
    assert codes(sign(simulation, [request(0, "changed"), request(1, "changed")])) == ["transaction_conflict"] * 2


def test_an_unknown_failure_frees_the_claims(simulation: Simulation) -> None:
    """A defect in an edge reaches the entrance as it is, and the transaction can be tried again at once."""
    simulation.key_ring.fail_next(RuntimeError("a defect"))
    with pytest.raises(RuntimeError):
        sign(simulation, [request(1)])
    assert codes(sign(simulation, [request(1)])) == ["signed"]


def test_every_transaction_is_audited_with_what_signed_it(simulation: Simulation) -> None:
    """One record each: who asked, through which message, which key, handle, session and user, and both hashes."""
    (outcome,) = sign(simulation, [request(7)])
    assert isinstance(outcome, Signed)
    (entry,) = simulation.audit.entries
    assert (entry.caller, entry.entrance, entry.channel, entry.message_id, entry.batch_id) == (
        CALLER, "sqs", "settlement-inbound", "message-1", "BATCH-1"
    )  # fmt: skip
    assert (entry.transaction_id, entry.mechanism) == ("TXN-7", "CKM_RSA_PKCS")
    assert (entry.key_handle, entry.session_handle, entry.token_serial, entry.crypto_user) == (
        7, 11, "SIM0001", "crypto_user"
    )  # fmt: skip
    assert entry.digest == "sha256:" + request(7).digest.hex()
    assert entry.signature_sha256 == "sha256:" + hashlib.sha256(outcome.signature.value_bytes()).hexdigest()
