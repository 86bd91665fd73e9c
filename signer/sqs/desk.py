"""From a delivered message to a signed batch, or to the reason why there is none; touches no queue."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Final

from signer.deadlines import Deadline
from signer.errors import (
    BatchAbandonedError,
    BatchTooLargeError,
    ConflictError,
    InvalidInputError,
    NotAuthorisedError,
    SignerError,
)
from signer.metrics import Stopwatch
from signer.ports import Origin, Signature, SigningKey
from signer.settings import SqsSettings
from signer.signing import SigningService
from signer.sqs.errors import BatchDeferredError
from signer.sqs.inbound import queue_name
from signer.sqs.messages import Delivery, SignedBatch, sendable
from signer.transactions import BatchRefusedError, Refusal, SettlementBatch, parse_batch, render_signed
from signer.work import Outcome, Refused, Signed

# Only these are the batch's own fault. Any other error, retryable or not, is ours: the batch stays in the queue.
_FOR_GOOD: Final = (InvalidInputError, NotAuthorisedError, ConflictError)
_TIMESTAMP_STAND_IN: Final = "2028-03-08T12:00:00.123456Z"
# As long as a UUID; what the audit log gives today is shorter.
_AUDIT_ID_STAND_IN: Final = "00000000-0000-0000-0000-000000000000"


class SigningDesk:
    """Has batches signed, all or nothing, in the name of the inbound queue."""

    def __init__(self, service: SigningService, settings: SqsSettings, signing_timeout_s: float) -> None:
        self._service = service
        self._queue = queue_name(settings.inbound_url)
        self._max_transactions = settings.max_transactions
        self._max_message_bytes = settings.max_message_bytes
        self._signing_timeout_s = signing_timeout_s

    def sign(self, delivery: Delivery, watch: Stopwatch) -> SignedBatch:
        """Sign a whole batch.

        Raises `BatchRefusedError` for one that can never be signed, `BatchDeferredError` for one that could not be
        signed now.
        """
        deadline = Deadline.after(self._signing_timeout_s)
        batch = parse_batch(delivery.body.encode(), self._max_transactions)
        self._refuse_too_large(batch)
        outcomes = self._service.sign_many(
            batch.requests, self._origin(delivery, batch.batch_id), deadline, watch, all_or_nothing=True
        )
        signatures = [outcome.signature for outcome in outcomes if isinstance(outcome, Signed)]
        if len(signatures) < len(batch.requests):
            raise _verdict(batch, outcomes)
        signed = _signed_batch(batch, signatures, Counter(map(_name, outcomes)))
        self._check_size(batch, signed)
        return signed

    def record_quarantine(self, delivery: Delivery, refused: BatchRefusedError) -> None:
        """Make durable that the batch is set aside, and why; raises `AuditUnavailableError`."""
        codes = Counter(refusal.error.code for refusal in refused.refusals)
        detail = f"{refused.cause.message}; transactions: {dict(codes) or 'none could be read'}"
        self._service.record_quarantine(self._origin(delivery, refused.batch_id), refused.cause, detail)

    def _origin(self, delivery: Delivery, batch_id: str | None) -> Origin:
        return Origin("sqs", f"queue:{self._queue}", self._queue, delivery.message_id, batch_id)

    def _refuse_too_large(self, batch: SettlementBatch) -> None:
        # Before anything is signed: what cannot go out must not be signed either.
        alias, keys = batch.requests[0].key_alias, self._service.keys()
        key = next((key for key in keys if key.alias == alias), None)
        if key is not None:
            stand_ins = [_stand_in(key, request.algorithm.name) for request in batch.requests]
            self._check_size(batch, _signed_batch(batch, stand_ins, {}))

    def _check_size(self, batch: SettlementBatch, signed: SignedBatch) -> None:
        if signed.size_bytes() > self._max_message_bytes:
            msg = f"signed, the batch is larger than the {self._max_message_bytes} bytes the outbound queue takes"
            raise _refused_whole(batch, BatchTooLargeError(msg))


def _signed_batch(batch: SettlementBatch, signatures: Sequence[Signature], outcomes: dict[str, int]) -> SignedBatch:
    body = render_signed(batch, [signature.to_message() for signature in signatures]).decode()
    return SignedBatch(batch.batch_id, sendable(body), outcomes)


def _stand_in(key: SigningKey, algorithm: str) -> Signature:
    # As long as the real one, unless that is a replay under a former, longer label; so the size is checked again.
    return Signature(
        algorithm=algorithm,
        key_alias=key.alias,
        key_label=key.label,
        key_fingerprint=key.fingerprint,
        digest=base64.b64encode(bytes(32)).decode("ascii"),
        value=base64.b64encode(bytes(key.public_key.key_size // 8)).decode("ascii"),
        signed_at=_TIMESTAMP_STAND_IN,
        audit_id=_AUDIT_ID_STAND_IN,
    )


def _verdict(batch: SettlementBatch, outcomes: Sequence[Outcome]) -> BatchRefusedError | BatchDeferredError:
    abandoned = BatchAbandonedError("another transaction of the batch was not signed")
    refusals = [
        Refusal(index, request.transaction_id, outcome.error if isinstance(outcome, Refused) else abandoned)
        for index, (request, outcome) in enumerate(zip(batch.requests, outcomes, strict=True))
    ]
    errors = [refusal.error for refusal in refusals]
    for error in errors:
        if isinstance(error, _FOR_GOOD):
            return BatchRefusedError(error, batch.batch_id, refusals)
    cause = next((error for error in errors if not isinstance(error, BatchAbandonedError)), abandoned)
    return BatchDeferredError(cause, batch.batch_id, refusals)


def _refused_whole(batch: SettlementBatch, error: SignerError) -> BatchRefusedError:
    refusals = [Refusal(index, request.transaction_id, error) for index, request in enumerate(batch.requests)]
    return BatchRefusedError(error, batch.batch_id, refusals)


def _name(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        return outcome.error.code
    return "replayed" if outcome.replayed else "signed"
