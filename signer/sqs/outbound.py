"""A queue that something is sent to: what it has accepted, it has accepted byte for byte."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from signer.sqs.calls import insist
from signer.sqs.errors import QueueUnavailableError
from signer.sqs.messages import Outgoing
from signer.sqs.receipts import md5_of_attributes, md5_of_body

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageRequestTypeDef, SendMessageResultTypeDef


class OutboundQueue:
    """Sends to one queue, standard or FIFO."""

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url

    def send(self, message: Outgoing, still_ours: Callable[[], None]) -> None:
        """Return once the queue has said that it has this very message.

        After `QueueUnavailableError` it may have it all the same. Raises what `still_ours` raises, which is asked
        before each attempt.
        """
        request: SendMessageRequestTypeDef = {
            "QueueUrl": self._url,
            "MessageBody": message.body,
            "MessageAttributes": message.attributes,
        }
        if self._url.endswith(".fifo"):
            request["MessageGroupId"] = message.group_id
            request["MessageDeduplicationId"] = message.deduplication_id
        answer = insist("SendMessage", lambda: self._client.send_message(**request), still_ours)
        if not _is_receipt(answer, message):
            msg = "SendMessage failed: the queue did not confirm the message that was sent"
            raise QueueUnavailableError(msg)


def _is_receipt(answer: "SendMessageResultTypeDef", message: Outgoing) -> bool:
    expected = md5_of_attributes(message.attributes) if message.attributes else None
    return (
        bool(answer.get("MessageId"))
        and answer.get("MD5OfMessageBody") == md5_of_body(message.body)
        and answer.get("MD5OfMessageAttributes") == expected
    )
