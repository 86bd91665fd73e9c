"""A closed loop over the queues: so many batches are under way, and each that comes out lets the next one in."""

import json
import time
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from loadtest.closed import Run
from loadtest.messages import Book, batch_body
from loadtest.proof import NotProvenError, Proof

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MOST_IN_A_CALL: Final = 10
_MOST_BYTES_IN_A_CALL: Final = 1_000_000
_PATIENCE_S: Final = 60.0


class SqsLoad:
    """Settlement batches of `batch` transactions, `under_way` of them at a time."""

    def __init__(
        self, sqs: "SQSClient", queues: dict[str, str], batch: int, under_way: int, book: Book, proof: Proof
    ) -> None:
        self.batch = batch
        self._sqs, self._queues, self._under_way, self._book, self._proof = sqs, queues, under_way, book, proof
        self._numbers = count()
        self._sent_at_s: dict[str, float] = {}
        self._unverified: list[str] = []

    def run(self, prefix: str, seconds: float) -> Run:
        """Keep them busy for so long; raises `NotProvenError` if a batch does not come out."""
        began_s = time.time()
        latencies_ms: list[float] = []
        last_s = began_s
        self._send(prefix, self._under_way)
        heard_s = time.time()
        while self._sent_at_s:
            if time.time() > heard_s + _PATIENCE_S:
                msg = f"{len(self._sent_at_s)} batches did not come out"
                raise NotProvenError(msg)
            for message in self._receive():
                heard_s = time.time()
                out_s = int(message["Attributes"]["SentTimestamp"]) / 1000
                batch_id = message["MessageAttributes"]["batch_id"]["StringValue"]
                latencies_ms.append((out_s - self._sent_at_s.pop(batch_id)) * 1000)
                last_s = max(last_s, out_s)
                self._unverified.append(message["Body"])
            if time.time() < began_s + seconds:
                self._send(prefix, self._under_way - len(self._sent_at_s))
        return Run(len(latencies_ms) * self.batch, last_s - began_s, latencies_ms)

    def verify(self) -> None:
        """Verify all that came out; raises `NotProvenError`."""
        for body in self._unverified:
            for item in json.loads(body)["transactions"]:
                self._proof.receive(item["transaction_id"], item["signature"])
        self._unverified.clear()

    def _send(self, prefix: str, number: int) -> None:
        entries: list[dict[str, str]] = []
        size = 0
        for _ in range(number):
            batch_id = f"{prefix}-{next(self._numbers)}"
            transactions = [self._book.take(prefix) for _ in range(self.batch)]
            for name, page in transactions:
                self._proof.send(name, page.digest)
            body = batch_body(batch_id, transactions)
            if len(entries) == _MOST_IN_A_CALL or size + len(body) > _MOST_BYTES_IN_A_CALL:
                self._send_now(entries)
                entries, size = [], 0
            size += len(body)
            entries.append({"Id": str(len(entries)), "MessageBody": body})
            self._sent_at_s[batch_id] = time.time()
        self._send_now(entries)

    def _send_now(self, entries: Sequence[Any]) -> None:
        if entries and self._sqs.send_message_batch(QueueUrl=self._queues["inbound"], Entries=entries).get("Failed"):
            msg = "the queue did not take what was sent"
            raise NotProvenError(msg)

    def _receive(self) -> list[Any]:
        url = self._queues["outbound"]
        messages = self._sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=_MOST_IN_A_CALL,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["SentTimestamp"],
            MessageAttributeNames=["batch_id"],
        ).get("Messages", [])
        if messages:
            gone: list[Any] = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            self._sqs.delete_message_batch(QueueUrl=url, Entries=gone)
        return list(messages)
