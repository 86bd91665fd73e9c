"""What SQS says it has accepted is reckoned here as SQS reckons it."""

import hashlib

from signer.sqs.messages import Attributes
from signer.sqs.receipts import md5_of_attributes, md5_of_body

ATTRIBUTES: Attributes = {
    "number": {"DataType": "Number", "StringValue": "230.000000000000000001"},
    "binary": {"DataType": "Binary.gif", "BinaryValue": b"\x00\xff"},
    "a name": {"DataType": "String", "StringValue": "ß 2028"},
}


def encoded(*octets: bytes) -> bytes:
    """Each with its length before it, as the SQS developer guide describes it."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in octets)


def test_attributes_are_hashed_by_name_with_type_and_value() -> None:
    """In the order of their names, whatever order they were given in; one wrong byte would be noticed."""
    expected = (
        encoded(b"a name", b"String") + b"\x01" + encoded("ß 2028".encode())
        + encoded(b"binary", b"Binary.gif") + b"\x02" + encoded(b"\x00\xff")
        + encoded(b"number", b"Number") + b"\x01" + encoded(b"230.000000000000000001")
    )  # fmt: skip
    assert md5_of_attributes(ATTRIBUTES) == hashlib.md5(expected, usedforsecurity=False).hexdigest()


def test_bodies_are_hashed_as_utf_8() -> None:
    """The example of RFC 1321, and a character beyond ASCII."""
    assert md5_of_body("abc") == "900150983cd24fb0d6963f7d28e17f72"
    assert md5_of_body("ß") == hashlib.md5(b"\xc3\x9f", usedforsecurity=False).hexdigest()
