"""What leaves: signed batches downstream, batches that can never be signed to quarantine."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from signer import failpoints
from signer.settings import SqsSettings
from signer.sqs.downstream import Downstream
from signer.sqs.inbound import queue_name
from signer.sqs.messages import Delivery, Outgoing, SignedBatch
from signer.sqs.outbound import OutboundQueue
from signer.sqs.patience import Failure
from signer.sqs.quarantine import quarantine_attributes
from signer.transactions import BatchRefusedError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class Forwarder:
    """Sends; a call that returns was accepted, one that raises `UnavailableError` may have been.

    `still_ours` is called before each attempt, and ends it by raising once the message is somebody else's.
    """

    def __init__(self, client: "SQSClient", settings: SqsSettings, downstream: Downstream) -> None:
        self._downstream = downstream
        self._quarantine = OutboundQueue(client, settings.quarantine_url, settings.max_message_bytes)
        self._max_message_bytes = settings.max_message_bytes
        self._inbound_name = queue_name(settings.inbound_url)

    def forward(self, signed: SignedBatch, still_ours: Callable[[], None]) -> None:
        """Send the signed batch on."""
        failpoints.reach("forwarding", failpoints.cut_short(lambda: self._downstream.accept(signed, still_ours)))
        self._downstream.accept(signed, still_ours)
        failpoints.reach("forwarded")

    def quarantine(
        self,
        delivery: Delivery,
        refused: BatchRefusedError,
        history: Sequence[Failure],
        still_ours: Callable[[], None],
    ) -> None:
        """Set the message aside, whole and unchanged, with the reasons beside it; a pointer stays a pointer."""
        attributes = quarantine_attributes(delivery, refused, history, self._inbound_name, self._max_message_bytes)
        # By message, not by content: a batch that is sent in again, and is refused again, must be seen again.
        message = Outgoing(delivery.body, attributes, delivery.group_id, delivery.message_id)
        failpoints.reach("quarantining", failpoints.cut_short(lambda: self._quarantine.send(message, still_ours)))
        self._quarantine.send(message, still_ours)
        failpoints.reach("quarantined")
