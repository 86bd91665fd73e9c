"""Pointers to bodies in S3 are read as the Amazon SQS Extended Client writes them, and written as it reads them."""

import pytest

from signer.errors import InvalidPayloadPointerError
from signer.sqs.messages import Attributes, Delivery
from signer.sqs.pointers import Pointer, pointer_of

JAVA = '["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"a-bucket","s3Key":"a/key"}]'
PYTHON = '["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": "a-bucket", "s3Key": "a/key"}]'
LEGACY = '["com.amazon.sqs.javamessaging.MessageS3Pointer",{"s3BucketName":"a-bucket","s3Key":"a/key"}]'


def delivery(body: str, size: str | None = "1000", attribute: str = "ExtendedPayloadSize") -> Delivery:
    """A message with this body, whose size attribute says `size`."""
    attributes: Attributes = {} if size is None else {attribute: {"DataType": "Number", "StringValue": size}}
    return Delivery("message-1", "handle", body, attributes, {}, 0.0, 0.0)


def to(bucket: str, key: str) -> str:
    """A pointer to this place."""
    return JAVA.replace("a-bucket", bucket).replace("a/key", key)


@pytest.mark.parametrize("attribute", ["ExtendedPayloadSize", "SQSLargePayloadSize"])
@pytest.mark.parametrize("body", [JAVA, PYTHON, LEGACY])
def test_every_library_is_understood(body: str, attribute: str) -> None:
    """Java 1 and 2 and Python, each under the current and under the legacy name of the attribute."""
    assert pointer_of(delivery(body, "1000", attribute)) == Pointer("a-bucket", "a/key", 1000)


def test_what_is_written_is_what_java_writes() -> None:
    """Body and attribute are those that a consumer with the library expects."""
    pointer = Pointer("a-bucket", "a/key", 1000)
    assert pointer.body() == JAVA
    assert pointer.attribute() == {"DataType": "Number", "StringValue": "1000"}


@pytest.mark.parametrize("body", [JAVA, "anything"])
def test_the_attribute_decides(body: str) -> None:
    """A message without it is a batch, whatever its body looks like: nobody smuggles a pointer in by the body."""
    assert pointer_of(delivery(body, None)) is None


@pytest.mark.parametrize("size", ["", "-1", "1.5", "1e3", "٣", " 7", "9" * 13])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    """The attribute is a count of bytes in plain digits, or the message is refused."""
    with pytest.raises(InvalidPayloadPointerError):
        pointer_of(delivery(JAVA, size))


@pytest.mark.parametrize(
    "body",
    [
        "{}", "[]", "not JSON", '["software.amazon.payloadoffloading.PayloadS3Pointer"]',
        JAVA.replace("PayloadS3Pointer", "Other"), JAVA.replace('"a/key"', "7"),
        JAVA.replace('"s3Key"', '"s3BucketName"'),
        to("UPPER", "k"), to("a", "k"), to("arn:aws:s3:eu-central-1:123456789012:accesspoint/other", "k"),
        to("a-bucket/inbound", "k"), to("a-bucket\\n", "k"),
        to("a-bucket", ""), to("a-bucket", "x" * 1025),
        to("a-bucket", "a/../b"), to("a-bucket", "./b"), to("a-bucket", ".."),
    ],
)  # fmt: skip
def test_what_is_no_plain_place_is_refused(body: str) -> None:
    """Neither another document, nor an access point, nor a key that a library on the way would resolve to another."""
    with pytest.raises(InvalidPayloadPointerError) as caught:
        pointer_of(delivery(body))
    assert "a-bucket" not in caught.value.message


def test_a_hostile_pointer_is_refused_without_harm() -> None:
    """Deep nesting in the body of a pointer is a refusal, not a crash."""
    with pytest.raises(InvalidPayloadPointerError):
        pointer_of(delivery("[" * 100_000))
