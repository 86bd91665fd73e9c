"""The load on the queue entrance: small batches go in, a consumer downstream takes all that comes out."""

import json
import time
from typing import Final

from signer.demo.stack import Stack
from signer.drill.evidence import Event, Evidence, Released, Sent
from signer.drill.loops import Loop, Steady
from signer.signatures import ALGORITHMS

_TRANSACTIONS: Final = 3
_ALGORITHMS: Final = tuple(ALGORITHMS)
_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


class QueueLoad:
    """Sends one batch after another, and remembers each copy that comes out."""

    def __init__(self, stack: Stack, batches_per_s: float, evidence: Evidence) -> None:
        self._sqs = stack.sqs
        self._queues = stack.queues
        self._evidence = evidence
        self._downstream = Loop("downstream", self._take)
        self._arrivals = Steady("sqs-arrivals", batches_per_s, self._arrive)

    def check(self) -> None:
        """Raise what ended a thread of it."""
        self._arrivals.check()
        self._downstream.check()

    def stop(self) -> None:
        """Send no more; what comes out is still taken."""
        self._arrivals.stop()

    def finished(self) -> bool:
        """Whether the inbound queue is empty, of hidden messages too."""
        url = self._queues["inbound"]
        found = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))["Attributes"]
        return all(int(count) == 0 for count in found.values())

    def close(self) -> None:
        """Take no more."""
        self._downstream.stop()

    def _arrive(self, number: int) -> None:
        messages = {
            f"DRILL-Q-{number}-{i}": {"amount": f"{number}.{i:02}", "currency": "EUR"} for i in range(_TRANSACTIONS)
        }
        for transaction_id, message in messages.items():
            self._evidence.send(Sent(transaction_id, "sqs", message, time.time()))
        batch = {
            "schema": "settlement-batch/1",
            "batch_id": f"DRILL-Q-{number}",
            "key": "settlement",
            "algorithm": _ALGORITHMS[number % len(_ALGORITHMS)],
            "transactions": [{"transaction_id": name, "message": message} for name, message in messages.items()],
        }
        self._sqs.send_message(QueueUrl=self._queues["inbound"], MessageBody=json.dumps(batch))

    def _take(self) -> None:
        url = self._queues["outbound"]
        answer = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            transactions = json.loads(message["Body"])["transactions"]
            for item in transactions:
                self._evidence.release(Released(item["transaction_id"], item["signature"], item["message"]))
            asked_s = self._evidence.sent[transactions[0]["transaction_id"]].at_s
            self._evidence.note(Event(time.time(), "sqs", None, asked_s, len(transactions)))
            self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
