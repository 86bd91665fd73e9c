"""The inbound queue: receive, extend or end a message's invisibility, delete."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from signer.settings import SqsSettings
from signer.sqs.calls import insist
from signer.sqs.grouped import GroupedCalls, by_entry, is_refused
from signer.sqs.messages import Delivery

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        ChangeMessageVisibilityBatchRequestEntryTypeDef,
        DeleteMessageBatchRequestEntryTypeDef,
    )

_DELETE: Final = "DeleteMessageBatch"


class InboundQueue:
    """The queue that batches come from; every call raises `QueueUnavailableError` and nothing else of AWS's."""

    def __init__(self, client: "SQSClient", settings: SqsSettings, lease_client: "SQSClient | None" = None) -> None:
        self._client = client
        self._lease_client = lease_client or client
        self._url = settings.inbound_url
        self._visibility_timeout_s = settings.visibility_timeout_s
        # Nobody can tell when within a long poll a message was hidden, so its lease counts from the call. A poll
        # no longer than a third of it leaves the lease time for two more beats of the heartbeat.
        self._wait_s = min(settings.wait_s, settings.visibility_timeout_s // 3)
        self._deletes = GroupedCalls(self._delete, is_refused)
        self.name = queue_name(settings.inbound_url)

    def receive(self, most: int) -> list[Delivery]:
        """Wait for up to `most` (1 to 10) messages."""
        return insist("ReceiveMessage", lambda: self._receive(most))

    def _receive(self, most: int) -> list[Delivery]:
        asked_at_s = time.monotonic()
        answer = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=self._wait_s,
            VisibilityTimeout=self._visibility_timeout_s,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        received_at_s = time.monotonic()
        return [
            Delivery(
                message_id=message["MessageId"],
                receipt_handle=message["ReceiptHandle"],
                body=message["Body"],
                attributes=message.get("MessageAttributes", {}),
                system_attributes={str(name): value for name, value in message.get("Attributes", {}).items()},
                asked_at_s=asked_at_s,
                received_at_s=received_at_s,
            )
            for message in answer.get("Messages", [])
        ]

    def hide(self, seconds_by_handle: Mapping[str, int]) -> dict[str, str]:
        """Hide up to ten messages for so long from now (0: not at all); gives handle and code of each one refused."""
        handles = list(seconds_by_handle)
        entries: list[ChangeMessageVisibilityBatchRequestEntryTypeDef] = [
            {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": seconds_by_handle[handle]}
            for index, handle in enumerate(handles)
        ]
        answer = insist(
            "ChangeMessageVisibilityBatch",
            lambda: self._lease_client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries),
        )
        # The Query protocol's codes had a prefix (`AWS.SimpleQueueService.`), and some endpoints still send it.
        return {handles[int(entry["Id"])]: entry["Code"].rpartition(".")[2] for entry in answer.get("Failed", [])}

    def delete(self, receipt_handle: str, still_ours: Callable[[], None]) -> None:
        """Remove a message for good; `still_ours` raises once that is no longer for us to do."""
        insist(_DELETE, lambda: self._deletes.make(receipt_handle, still_ours))

    def _delete(self, handles: Sequence[str]) -> list[Mapping[str, Any] | ClientError]:
        entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
            {"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)
        ]
        return by_entry(_DELETE, self._client.delete_message_batch(QueueUrl=self._url, Entries=entries), len(entries))


def queue_name(url: str) -> str:
    """Give the name at the end of a queue's URL."""
    return url.rstrip("/").rpartition("/")[2]


def caller_name(url: str) -> str:
    """Give the name by which the policy knows a queue."""
    return f"queue:{queue_name(url)}"
