"""Where signed batches go: a port of one method, and SQS behind it; SNS, EventBridge or HTTP would be others."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from signer.settings import SqsSettings
from signer.sqs.messages import Outgoing, SignedBatch, attributes_bytes
from signer.sqs.outbound import OutboundQueue
from signer.sqs.payload import PayloadStore
from signer.sqs.pointers import SIZE_ATTRIBUTE

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class Downstream(Protocol):
    """Takes signed batches over."""

    def accept(self, batch: SignedBatch, still_ours: Callable[[], None]) -> None:
        """Hand a batch over.

        MUST return only once the other side has confirmed that it has exactly this body, and MUST call `still_ours`
        right before each attempt that others could see: what that raises ends it. Raises `UnavailableError` where the
        other side does not have the batch, or may have it; the caller then calls again, sooner or later, with an equal
        batch, and two of them MUST be the same bytes.
        """
        ...


class SqsDownstream:
    """A `Downstream`: the outbound queue, and S3 for what it does not take."""

    def __init__(self, client: "SQSClient", settings: SqsSettings, store: PayloadStore | None) -> None:
        self._queue = OutboundQueue(client, settings.outbound_url, settings.max_message_bytes)
        self._max_message_bytes = settings.max_message_bytes
        self._store = store

    def accept(self, batch: SignedBatch, still_ours: Callable[[], None]) -> None:
        """Send it, or a pointer to it; see `Downstream`."""
        body, attributes = batch.body, batch.attributes()
        if self._store is not None and len(body) + attributes_bytes(attributes) > self._max_message_bytes:
            # Nobody sees the object before the pointer, so it may be stored whoever the message belongs to.
            pointer = self._store.keep(body, batch.content_sha256)
            body, attributes = pointer.body().encode(), {**attributes, SIZE_ATTRIBUTE: pointer.attribute()}
        self._queue.send(Outgoing(body.decode(), attributes, batch.group_id, batch.content_sha256), still_ours)
