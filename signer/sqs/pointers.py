"""Messages whose body lies in S3: the wire format of the Amazon SQS Extended Client Library (Java 1 and 2, Python).

Whether a message is one is said by a reserved attribute alone, which holds the size of the body in bytes of UTF-8.
"""

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from signer import strict_json
from signer.errors import InvalidInputError, InvalidPayloadPointerError
from signer.sqs.messages import Delivery

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

SIZE_ATTRIBUTE: Final = "ExtendedPayloadSize"
LEGACY_SIZE_ATTRIBUTE: Final = "SQSLargePayloadSize"
_CLASS: Final = "software.amazon.payloadoffloading.PayloadS3Pointer"
_LEGACY_CLASS: Final = "com.amazon.sqs.javamessaging.MessageS3Pointer"
_SIZE: Final = re.compile("[0-9]{1,12}")
# Not an ARN, which could name an access point of anybody's.
_BUCKET: Final = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MOST_KEY_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a body lies, and how large it is said to be."""

    bucket: str
    key: str
    size_bytes: int

    def body(self) -> str:
        """Give the body of the message that points there."""
        return json.dumps([_CLASS, {"s3BucketName": self.bucket, "s3Key": self.key}], separators=(",", ":"))

    def attribute(self) -> "MessageAttributeValueOutputTypeDef":
        """Give the value of `SIZE_ATTRIBUTE`."""
        return {"DataType": "Number", "StringValue": str(self.size_bytes)}


def pointer_of(delivery: Delivery) -> Pointer | None:
    """Read where the body lies; None if it is in the message. Raises `InvalidPayloadPointerError`."""
    size = delivery.attributes.get(SIZE_ATTRIBUTE) or delivery.attributes.get(LEGACY_SIZE_ATTRIBUTE)
    if size is None:
        return None
    place = _place_of(delivery.body)
    text = size.get("StringValue", "")
    if place is None or not _SIZE.fullmatch(text):
        msg = f"a message with `{SIZE_ATTRIBUTE}` is not a pointer to an S3 object and its size"
        raise InvalidPayloadPointerError(msg)
    return Pointer(*place, int(text))


def _place_of(body: str) -> tuple[str, str] | None:
    try:
        document: Any = strict_json.parse(body.encode())
    except InvalidInputError:
        return None
    match document:
        case [str(name), {"s3BucketName": str(bucket), "s3Key": str(key)}] if name in (_CLASS, _LEGACY_CLASS):
            return (bucket, key) if _BUCKET.fullmatch(bucket) and _is_plain(key) else None
    return None


def _is_plain(key: str) -> bool:
    try:
        octets = key.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write and no key can hold
        return False
    # HTTP libraries resolve dot segments, and would fetch another object than the one that was found acceptable.
    return 0 < len(octets) <= _MOST_KEY_BYTES and not {".", ".."} & set(key.split("/"))
