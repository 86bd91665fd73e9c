"""SQS messages as values: what was delivered, what goes out, and how large SQS reckons it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

Attributes = Mapping[str, "MessageAttributeValueOutputTypeDef"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, as one receive brought it."""

    message_id: str
    receipt_handle: str
    body: str
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
    body: str
    outcomes: Mapping[str, int]
    """How many transactions were `signed`, and how many `replayed`."""

    def attributes(self) -> Attributes:
        """Give the message attributes it travels with."""
        return {"batch_id": string_attribute(self.batch_id), "content_sha256": string_attribute(sha256_hex(self.body))}

    def size_bytes(self) -> int:
        """Give its size as SQS counts it."""
        return size_bytes(self.body, self.attributes())


def string_attribute(value: str) -> "MessageAttributeValueOutputTypeDef":
    """Wrap a string as a message attribute."""
    return {"DataType": "String", "StringValue": value}


def size_bytes(body: str, attributes: Attributes) -> int:
    """Count as SQS does: the body, and each attribute's name, type and value."""
    return len(body.encode()) + sum(
        len(name.encode())
        + len(attribute["DataType"].encode())
        + len(attribute.get("StringValue", "").encode())
        + len(attribute.get("BinaryValue", b""))
        for name, attribute in attributes.items()
    )


def sendable(json_text: str) -> str:
    """Escape the two characters that JSON may hold raw and SQS refuses (outside #x9 #xA #xD #x20-#xFFFD #x10000-)."""
    return json_text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def sha256_hex(body: str) -> str:
    """Name a body by its content."""
    return hashlib.sha256(body.encode()).hexdigest()
