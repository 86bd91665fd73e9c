"""What leaves: signed batches to the outbound queue, batches that can never be signed to quarantine."""

from typing import TYPE_CHECKING

from signer.settings import SqsSettings
from signer.sqs.errors import queue_call
from signer.sqs.inbound import queue_name
from signer.sqs.messages import Attributes, Delivery, SignedBatch, sha256_hex
from signer.sqs.quarantine import quarantine_attributes
from signer.transactions import BatchRefusedError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageRequestTypeDef


class Forwarder:
    """Sends; a call that returns was accepted downstream, one that raises `QueueUnavailableError` may have been."""

    def __init__(self, client: "SQSClient", settings: SqsSettings) -> None:
        self._client = client
        self._outbound_url = settings.outbound_url
        self._quarantine_url = settings.quarantine_url
        self._max_message_bytes = settings.max_message_bytes
        self._inbound_name = queue_name(settings.inbound_url)

    def forward(self, signed: SignedBatch, delivery: Delivery) -> None:
        """Send the signed batch on."""
        self._send(self._outbound_url, signed.body, signed.attributes(), delivery.group_id)

    def quarantine(self, delivery: Delivery, refused: BatchRefusedError) -> None:
        """Set the message aside, whole and unchanged, with the reasons beside it."""
        attributes = quarantine_attributes(delivery, refused, self._inbound_name, self._max_message_bytes)
        self._send(self._quarantine_url, delivery.body, attributes, delivery.group_id)

    def _send(self, url: str, body: str, attributes: Attributes, group_id: str) -> None:
        request: SendMessageRequestTypeDef = {"QueueUrl": url, "MessageBody": body, "MessageAttributes": attributes}
        if url.endswith(".fifo"):
            request["MessageGroupId"] = group_id
            request["MessageDeduplicationId"] = sha256_hex(body)
        with queue_call("SendMessage"):
            self._client.send_message(**request)
