"""From a delivered message to a signed batch, or to the reason why there is none; touches no queue."""

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from signer.deadlines import Deadline
from signer.errors import (
    BatchAbandonedError,
    BatchTooLargeError,
    ConflictError,
    DeadlineExceededError,
    InvalidInputError,
    NotAuthorisedError,
    SignerError,
)
from signer.metrics import Stopwatch
from signer.ports import Origin, Signature, SigningKey
from signer.settings import SqsSettings
from signer.signing import Call, SigningService
from signer.sqs.bodies import Bodies
from signer.sqs.errors import BatchDeferredError
from signer.sqs.grouped import GroupedCalls
from signer.sqs.inbound import caller_name, queue_name
from signer.sqs.messages import Delivery, SignedBatch, sha256_hex, signed_size_bytes
from signer.sqs.traceparent import traceparent_of
from signer.transactions import BatchRefusedError, Refusal, SettlementBatch, parse_batch
from signer.work import Outcome, Refused, Signed

# Only these are the batch's own fault. Any other error, retryable or not, is ours: the batch stays in the queue.
_FOR_GOOD: Final = (InvalidInputError, NotAuthorisedError, ConflictError)
_LARGE_BYTES: Final = 1 << 20
_SMALL: Final = 25
"""Batches of so many transactions at most are signed together; no larger one, for the others would wait for it."""
_TOGETHER: Final = 50
"""So many transactions at most are signed together: a batch of one waits for no more of others."""
_LONG_S: Final = 0.05
"""So long a small batch waits for others to come out of the core, which may hang there."""
_FRESH_S: Final = 1.0
"""So much of its time a batch may have used up to be signed with others, for all go by the first deadline."""
_TIMESTAMP_STAND_IN: Final = "2028-03-08T12:00:00.123456Z"
# As long as a UUID; what the audit log gives today is shorter.
_AUDIT_ID_STAND_IN: Final = "00000000-0000-0000-0000-000000000000"


class SigningDesk:
    """Has batches signed, all or nothing, in the name of the inbound queue."""

    def __init__(
        self, service: SigningService, settings: SqsSettings, signing_timeout_s: float, bodies: Bodies
    ) -> None:
        self._service = service
        self._queue = queue_name(settings.inbound_url)
        self._caller = caller_name(settings.inbound_url)
        self._max_transactions = settings.max_transactions
        # What the queue does not take goes to S3, if there is one.
        self._max_message_bytes = settings.max_message_bytes if settings.payloads is None else None
        self._signing_timeout_s = signing_timeout_s
        self._bodies = bodies
        self._reading = threading.Lock()
        self._small: GroupedCalls[Call, list[Outcome]] = GroupedCalls(
            service.sign_together,
            lambda _: True,
            lambda call: len(call.requests),
            _TOGETHER,
            most_calls=settings.max_batches_in_flight,
            long_s=_LONG_S,
        )

    def sign(
        self,
        delivery: Delivery,
        watch: Stopwatch,
        tell_size: Callable[[int], None],
        still_ours: Callable[[], None],
    ) -> SignedBatch:
        """Sign a whole batch; `tell_size` is called with its number of transactions, `still_ours` before the core is.

        Raises `BatchRefusedError` for one that can never be signed, `BatchDeferredError` for one that could not be
        signed now, and `UnavailableError` for one that could not be fetched now.
        """
        deadline = Deadline.after(self._signing_timeout_s)
        batch = self._read(delivery, deadline, watch)
        tell_size(len(batch.requests))
        self._refuse_too_large(batch)
        origin = self._origin(delivery, batch.batch_id)
        outcomes = self._outcomes(Call(batch.requests, origin, deadline, watch, all_or_nothing=True), still_ours)
        signatures = [outcome.signature for outcome in outcomes if isinstance(outcome, Signed)]
        if len(signatures) < len(batch.requests):
            raise _verdict(batch, outcomes)
        signed = _signed_batch(batch, signatures, delivery, Counter(map(_name, outcomes)))
        # A replay under a former, longer label can be larger than reckoned.
        self._require_size(batch, len(signed.body))
        return signed

    def record_quarantine(self, delivery: Delivery, refused: BatchRefusedError) -> None:
        """Make durable that the batch is set aside, and why; raises `AuditUnavailableError`."""
        codes = Counter(refusal.error.code for refusal in refused.refusals)
        detail = f"{refused.cause.message}; transactions: {dict(codes) or 'none could be read'}"
        self._service.record_quarantine(self._origin(delivery, refused.batch_id), refused.cause, detail)

    def _read(self, delivery: Delivery, deadline: Deadline, watch: Stopwatch) -> SettlementBatch:
        with watch.stage("fetch"):
            body = self._bodies.body_of(delivery, deadline)
        if len(body) <= _LARGE_BYTES:
            return parse_batch(body, self._max_transactions)
        # Parsed, a body may take twenty times its size; what is kept of a good one afterwards is a fraction of that.
        if not self._reading.acquire(timeout=deadline.remaining_s()):
            msg = "the deadline passed while other large batches were read"
            raise DeadlineExceededError(msg)
        try:
            return parse_batch(body, self._max_transactions)
        finally:
            self._reading.release()

    def _outcomes(self, call: Call, still_ours: Callable[[], None]) -> list[Outcome]:
        if len(call.requests) > _SMALL or call.deadline.remaining_s() < self._signing_timeout_s - _FRESH_S:
            still_ours()
            return self._service.sign_together([call])[0]
        came_s = [time.perf_counter()]

        def begins() -> None:
            still_ours()
            if came_s:  # once: where others met a defect, each begins anew by itself
                call.watch.add("admission", time.perf_counter() - came_s.pop())

        return self._small.make(call, begins)

    def _origin(self, delivery: Delivery, batch_id: str | None) -> Origin:
        return Origin("sqs", self._caller, self._queue, delivery.message_id, batch_id)

    def _refuse_too_large(self, batch: SettlementBatch) -> None:
        # Before anything is signed: what cannot go out must not be signed either.
        request, keys = batch.requests[0], self._service.keys()
        key = next((key for key in keys if key.alias == request.key_alias), None)
        if key is not None:
            self._require_size(batch, batch.form.size_bytes(_stand_in(key, request.algorithm.name).to_message()))

    def _require_size(self, batch: SettlementBatch, body_bytes: int) -> None:
        limit = self._max_message_bytes
        if limit is not None and signed_size_bytes(batch.batch_id, body_bytes) > limit:
            msg = f"signed, the batch is larger than the {limit} bytes the outbound queue takes"
            raise _refused_whole(batch, BatchTooLargeError(msg))


def _signed_batch(
    batch: SettlementBatch, signatures: Sequence[Signature], delivery: Delivery, outcomes: dict[str, int]
) -> SignedBatch:
    body = batch.form.fill([signature.to_message() for signature in signatures])
    content_sha256 = sha256_hex(body)
    traceparent = traceparent_of(delivery.attributes, content_sha256)
    # A batch without a group is one of its own, the same whoever sends it again.
    group_id = delivery.system_attributes.get("MessageGroupId", batch.batch_id)
    return SignedBatch(batch.batch_id, body, content_sha256, traceparent, group_id, outcomes)


def _stand_in(key: SigningKey, algorithm: str) -> Signature:
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
