"""Three fresh queues, seen from outside the service."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from mypy_boto3_sqs import SQSClient
from mypy_boto3_sqs.literals import QueueAttributeNameType
from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef, MessageTypeDef

_PATIENCE_S = 25.0
_KEPT_HIDDEN_S = 600


def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as `condition` holds; fails saying `what` was waited for."""
    give_up_s = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, f"waited in vain: {what}"
        time.sleep(0.01)


@dataclass(frozen=True)
class Queue:
    """One queue; what it gives stays hidden, so that nothing is seen twice."""

    client: SQSClient
    url: str

    def put(self, body: str, **attributes: str | bytes | int) -> str:
        """Send a message with these attributes; gives its id."""
        answer = self.client.send_message(
            QueueUrl=self.url,
            MessageBody=body,
            MessageAttributes={name: _attribute(value) for name, value in attributes.items()},
        )
        return answer["MessageId"]

    def put_in_group(self, group_id: str, body: str) -> str:
        """Send a message to a FIFO queue, never as a duplicate; gives its id."""
        answer = self.client.send_message(
            QueueUrl=self.url, MessageBody=body, MessageGroupId=group_id, MessageDeduplicationId=uuid4().hex
        )
        return answer["MessageId"]

    def move_after(self, receives: int) -> "Queue":
        """Give the queue a dead-letter queue, where messages go after so many receives."""
        suffix = ".fifo" if self.url.endswith(".fifo") else ""
        kind: Mapping[QueueAttributeNameType, str] = {"FifoQueue": "true"} if suffix else {}
        dead = self.client.create_queue(QueueName=f"dead-{uuid4().hex[:8]}{suffix}", Attributes=kind)["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": receives})
        self.client.set_queue_attributes(QueueUrl=self.url, Attributes={"RedrivePolicy": policy})
        return Queue(self.client, dead)

    def receive_in_vain(self, times: int) -> None:
        """Spend so many receives of each message."""
        for _ in range(times):
            for message in self.look():
                self.show_again(message["ReceiptHandle"])

    def take(self, count: int = 1) -> list[MessageTypeDef]:
        """Receive exactly `count` messages, waiting for them."""
        taken: list[MessageTypeDef] = []

        def enough() -> bool:
            taken.extend(self.look())
            return len(taken) >= count

        until(enough, f"{count} messages in {self.url}")
        assert len(taken) == count
        return taken

    def look(self) -> list[MessageTypeDef]:
        """Receive what can be received at once."""
        answer = self.client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=0,
            VisibilityTimeout=_KEPT_HIDDEN_S,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return answer.get("Messages", [])

    def show_again(self, receipt_handle: str) -> None:
        """Make a message visible, as if its time had run out."""
        self.client.change_message_visibility(QueueUrl=self.url, ReceiptHandle=receipt_handle, VisibilityTimeout=0)

    @property
    def depth(self) -> int:
        """How many messages there are, hidden ones included."""
        answer = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        return sum(int(value) for name, value in answer["Attributes"].items() if name.startswith("ApproximateNumber"))


@dataclass(frozen=True)
class Queues:
    """The three queues of one consumer."""

    inbound: Queue
    outbound: Queue
    quarantine: Queue


def fresh_queues(client: SQSClient, suffix: str = "") -> Queues:
    """Create three empty queues; `suffix` is `.fifo` for FIFO queues."""
    name = f"settlement-{uuid4().hex[:8]}"
    kind: Mapping[QueueAttributeNameType, str] = {"FifoQueue": "true"} if suffix == ".fifo" else {}

    def create(role: str) -> Queue:
        return Queue(client, client.create_queue(QueueName=f"{name}-{role}{suffix}", Attributes=kind)["QueueUrl"])

    return Queues(create("inbound"), create("outbound"), create("quarantine"))


def batch(*transaction_ids: str, **changes: Any) -> str:
    """A settlement batch that can be signed, with `changes`."""
    transactions = [
        {"transaction_id": transaction_id, "message": {"amount": "1250.00", "reference": f"ref of {transaction_id}"}}
        for transaction_id in transaction_ids or ("TXN-1", "TXN-2", "TXN-3")
    ]
    document = {"schema": "settlement-batch/1", "batch_id": "STL-1", "key": "settlement", "transactions": transactions}
    return json.dumps({**document, **changes})


def _attribute(value: str | bytes | int) -> MessageAttributeValueTypeDef:
    if isinstance(value, bytes):
        return {"DataType": "Binary", "BinaryValue": value}
    return {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}
