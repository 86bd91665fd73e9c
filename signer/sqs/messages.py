"""SQS messages as values: what was delivered, what goes out, and how large SQS reckons it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

Attributes = Mapping[str, "MessageAttributeValueOutputTypeDef"]

_SHA256_LENGTH: Final = 64
_TRACEPARENT_LENGTH: Final = 55


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, as one receive brought it."""

    message_id: str
    receipt_handle: str
    body: str
    """The batch, or a pointer to where it lies."""
    attributes: Attributes
    system_attributes: Mapping[str, str]
    asked_at_s: float
    """When the receive call was made: the earliest moment at which the message can have been hidden."""
    received_at_s: float
    """When it answered; both are `time.monotonic()` seconds."""

    @property
    def receive_count(self) -> int:
        """How often SQS has delivered it, this time included."""
        return int(self.system_attributes.get("ApproximateReceiveCount", "1"))

    @property
    def group_id(self) -> str:
        """Its FIFO group; a message without one is a group of its own, the same at every delivery."""
        return self.system_attributes.get("MessageGroupId", self.message_id)


@dataclass(frozen=True, slots=True)
class SignedBatch:
    """A batch that may go out: every signature in it is verified, audited and kept."""

    batch_id: str
    body: bytes
    content_sha256: str
    """Of the body, in hex: equal bodies are the same batch, however often it comes by."""
    traceparent: str
    group_id: str
    """What keeps its place in a queue that keeps order."""
    outcomes: Mapping[str, int]
    """How many transactions were `signed`, and how many `replayed`."""

    def attributes(self) -> Attributes:
        """Give the message attributes it travels with."""
        return _attributes(self.batch_id, self.content_sha256, self.traceparent)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to be sent; the same at every attempt."""

    body: str
    attributes: Attributes
    group_id: str
    """For FIFO queues, as is the next."""
    deduplication_id: str


def signed_size_bytes(batch_id: str, body_bytes: int) -> int:
    """Give the size of a signed batch in the queue, before there is one."""
    return body_bytes + attributes_bytes(_attributes(batch_id, "0" * _SHA256_LENGTH, "0" * _TRACEPARENT_LENGTH))


def _attributes(batch_id: str, content_sha256: str, traceparent: str) -> Attributes:
    return {
        "batch_id": string_attribute(batch_id),
        "content_sha256": string_attribute(content_sha256),
        "traceparent": string_attribute(traceparent),
    }


def string_attribute(value: str) -> "MessageAttributeValueOutputTypeDef":
    """Wrap a string as a message attribute."""
    return {"DataType": "String", "StringValue": value}


def size_bytes(body: str, attributes: Attributes) -> int:
    """Count as SQS does: the body, and each attribute's name, type and value."""
    return len(body.encode()) + attributes_bytes(attributes)


def attributes_bytes(attributes: Attributes) -> int:
    """Count the attributes alone."""
    return sum(
        len(name.encode())
        + len(attribute["DataType"].encode())
        + len(attribute.get("StringValue", "").encode())
        + len(attribute.get("BinaryValue", b""))
        for name, attribute in attributes.items()
    )


def sha256_hex(body: bytes) -> str:
    """Name a body by its content."""
    return hashlib.sha256(body).hexdigest()
