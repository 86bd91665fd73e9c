"""A queue that something is sent to: what it has accepted, it has accepted byte for byte."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from signer.sqs.calls import insist
from signer.sqs.errors import QueueUnavailableError
from signer.sqs.grouped import GroupedCalls, by_entry, is_refused
from signer.sqs.messages import Outgoing, size_bytes
from signer.sqs.receipts import md5_of_attributes, md5_of_body

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

_OPERATION: Final = "SendMessageBatch"


class OutboundQueue:
    """Sends to one queue, standard or FIFO; what is sent at once goes out in one call."""

    def __init__(self, client: "SQSClient", url: str, most_bytes: int = 0) -> None:
        """Take `most_bytes` as what a call may hold, where more than one message is sent at once."""
        self._client = client
        self._url = url
        self._calls: GroupedCalls[Outgoing, Mapping[str, Any]] = GroupedCalls(
            self._send, is_refused, _size_bytes, most_bytes
        )

    def send(self, message: Outgoing, still_ours: Callable[[], None]) -> None:
        """Return once the queue has said that it has this very message.

        After `QueueUnavailableError` it may have it all the same. Raises what `still_ours` raises, which is asked
        before each attempt.
        """
        answer = insist(_OPERATION, lambda: self._calls.make(message, still_ours))
        if not _is_receipt(answer, message):
            msg = f"{_OPERATION} failed: the queue did not confirm the message that was sent"
            raise QueueUnavailableError(msg)

    def _send(self, messages: Sequence[Outgoing]) -> list[Mapping[str, Any] | ClientError]:
        entries = [self._entry(index, message) for index, message in enumerate(messages)]
        return by_entry(_OPERATION, self._client.send_message_batch(QueueUrl=self._url, Entries=entries), len(entries))

    def _entry(self, index: int, message: Outgoing) -> "SendMessageBatchRequestEntryTypeDef":
        entry: SendMessageBatchRequestEntryTypeDef = {
            "Id": str(index),
            "MessageBody": message.body,
            "MessageAttributes": message.attributes,
        }
        if self._url.endswith(".fifo"):
            entry["MessageGroupId"] = message.group_id
            entry["MessageDeduplicationId"] = message.deduplication_id
        return entry


def _size_bytes(message: Outgoing) -> int:
    return size_bytes(message.body, message.attributes)


def _is_receipt(answer: Mapping[str, Any], message: Outgoing) -> bool:
    expected = md5_of_attributes(message.attributes) if message.attributes else None
    return (
        bool(answer.get("MessageId"))
        and answer.get("MD5OfMessageBody") == md5_of_body(message.body)
        and answer.get("MD5OfMessageAttributes") == expected
    )
