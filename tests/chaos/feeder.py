"""Sends batches in, and takes out whatever comes: the two ends of a run, neither of which meets a fault."""

import json
import random
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from tests.chaos.batches import Mill
from tests.chaos.evidence import Copy, Journal, Sent, SetAside
from tests.chaos.signed import batch_id_of
from tests.chaos.site import Site

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_POINTER: Final = "software.amazon.payloadoffloading.PayloadS3Pointer"
_SIZE: Final = "ExtendedPayloadSize"
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "storing": ("large", "pointer"),
    "stored": ("large", "pointer"),
    "quarantining": ("bad",),
    "quarantined": ("bad",),
}
"""What a service must have to do with in order to come by a failpoint; any good batch for the others."""
_OTHERS: Final = 3
_MOST_WAITING: Final = 300


class Feeder:
    """Sends, in one order for all who ask it to."""

    def __init__(self, site: Site, mill: Mill, journal: Journal, is_out: Callable[[str], bool]) -> None:
        self._site = site
        self._mill = mill
        self._journal = journal
        self._is_out = is_out
        self._random = random.Random(0)  # noqa: S311 - no secret
        self._lock = threading.Lock()
        self._batches: set[str] = set()
        self._withheld: list[tuple[str, Sent]] = []

    @property
    def count(self) -> int:
        """Batches sent so far."""
        return len(self._batches)

    @property
    def withheld(self) -> bool:
        """Whether some are still waiting for others to come out."""
        return bool(self._withheld)

    def feed(self, failpoint: str) -> None:
        """Send a few, among them what leads to `failpoint`; nothing while enough waits to be worked off."""
        with self._lock:
            if self._site.depth("inbound") > _MOST_WAITING:
                return
            for _ in range(_OTHERS):
                self._send_lot(self._mill.any())
            self._send_lot(self._mill.of(self._random.choice(_NEEDED.get(failpoint, ("good",)))))
            self._send_withheld()

    def send_of(self, kind: str) -> None:
        """Send what is to be sent together, of one kind."""
        with self._lock:
            self._send_lot(self._mill.of(kind))

    def fill(self, count: int) -> None:
        """Send until there are so many batches."""
        with self._lock:
            while self.count < count:
                self._send_lot(self._mill.any())
            self._send_withheld()

    def _send_lot(self, lot: list[Sent]) -> None:
        for sent in lot:
            if sent.kind == "conflict" and sent.expect == "quarantine":
                # Its rival must have been signed before.
                self._withheld.append((lot[0].batch_id, sent))
            else:
                self.send(sent)

    def _send_withheld(self) -> None:
        for pair in [pair for pair in self._withheld if self._is_out(pair[0])]:
            self._withheld.remove(pair)
            self.send(pair[1])

    def send(self, sent: Sent) -> None:
        """Send one batch, once it is in the journal."""
        self._journal.add(sent)
        self._batches.add(sent.batch_id)
        message: dict[str, Any] = {"MessageBody": sent.body}
        if sent.kind == "pointer":
            key = f"inbound/{sent.batch_id}"
            self._site.emulator.s3.put_object(Bucket=self._site.bucket, Key=key, Body=sent.body.encode())
            place = [_POINTER, {"s3BucketName": self._site.bucket, "s3Key": key}]
            size = {"DataType": "Number", "StringValue": str(len(sent.body.encode()))}
            message = {"MessageBody": json.dumps(place), "MessageAttributes": {_SIZE: size}}
        if self._site.fifo:
            message |= {"MessageGroupId": sent.group, "MessageDeduplicationId": uuid4().hex}
        self._site.emulator.sqs.send_message(QueueUrl=self._site.queues["inbound"], **message)


class Collector:
    """Takes everything out of the outbound queue and the quarantine."""

    def __init__(self, site: Site, out: Journal, set_aside: Journal) -> None:
        self._site = site
        self._journals = {"outbound": out, "quarantine": set_aside}
        self._seen: set[str] = set()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._take, args=(role,), daemon=True) for role in self._journals]
        for thread in self._threads:
            thread.start()

    def is_out(self, batch_id: str) -> bool:
        """Whether a copy of this batch has come out."""
        return batch_id in self._seen

    def close(self) -> None:
        """Take what is left, and end."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _take(self, role: str) -> None:
        sqs, url = self._site.emulator.sqs, self._site.queues[role]
        while True:
            last = self._closing.is_set()
            answer = sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            for message in messages:
                self._journals[role].add(self._read(role, message))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if last and not messages:
                return

    def _read(self, role: str, message: "MessageTypeDef") -> Copy | SetAside:
        attributes = {name: value.get("StringValue", "") for name, value in message["MessageAttributes"].items()}
        system = message["Attributes"]
        body = self._body_of(message["Body"], attributes)
        if role == "quarantine":
            return SetAside(body, json.loads(attributes.get("quarantine", "{}")))
        self._seen.add(batch_id_of(body))
        sent_at_ms = int(system["SentTimestamp"])
        return Copy(body, attributes, sent_at_ms, system.get("MessageGroupId", ""), system.get("SequenceNumber", ""))

    def _body_of(self, body: str, attributes: Mapping[str, str]) -> str:
        if _SIZE not in attributes:
            return body
        place = json.loads(body)[1]
        stored = self._site.emulator.s3.get_object(Bucket=place["s3BucketName"], Key=place["s3Key"])["Body"].read()
        return stored.decode()
