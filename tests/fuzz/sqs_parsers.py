"""Parsers of what comes by SQS: batches, pointers, traces, and what stands beside a message."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from signer.errors import ConflictError, InvalidInputError
from signer.sqs.case import likely_transactions
from signer.sqs.errors import QueueUnavailableError
from signer.sqs.messages import Attributes, Delivery, size_bytes
from signer.sqs.patience import Failure
from signer.sqs.pointers import pointer_of
from signer.sqs.quarantine import quarantine_attributes
from signer.sqs.receipts import md5_of_attributes
from signer.sqs.redrive import redrive_of
from signer.sqs.set_aside import Entry, named, own_attributes, reasons_of
from signer.sqs.traceparent import traceparent_of
from signer.transactions import BatchRefusedError, Refusal, parse_batch
from tests.fuzz.parser import Parser, dumped, text

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

_BATCH: Final = {
    "schema": "settlement-batch/1",
    "batch_id": "STL-1",
    "key": "settlement",
    "algorithm": "RSASSA_PSS_SHA_256",
    "transactions": [
        {"transaction_id": "TXN-1", "message": {"amount": "1250.00", "n": 1.5, "\u20ac": [None, True]}},
        {"transaction_id": "TXN-2", "payload": "PD94bWwg"},
    ],
}
_TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_CLASSES: Final = (
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    "com.amazon.sqs.javamessaging.MessageS3Pointer",
)
_SIZES: Final = ("ExtendedPayloadSize", "SQSLargePayloadSize")
_REASONS: Final = {
    "code": "transaction_conflict",
    "group_id": "bank-7",
    "attributes": {
        "a": {"DataType": "String", "StringValue": "x"},
        "b": {"DataType": "Binary", "BinaryValue": "AA=="},
    },
}
_SYSTEM: Final = {
    "ApproximateReceiveCount": "3",
    "ApproximateFirstReceiveTimestamp": "1835524800000",
    "SentTimestamp": "1835524800000",
}
"""What SQS says itself; of these attributes a sender gives the group alone."""


def _message(body: str, **attributes: str) -> bytes:
    """Write a message down: as JSON, for botocore has turned whatever SQS sent into strings before we see it."""
    return dumped({"body": body, "attributes": attributes, "group": "bank-7"})


def _delivery(data: bytes) -> Delivery:
    """Make of any octets a message that botocore could deliver; SQS takes no lone surrogates."""
    try:
        found = json.loads(data, object_pairs_hook=lambda pairs: {_whole(name): value for name, value in pairs})
    except (ValueError, RecursionError):
        found = None
    document = found if isinstance(found, dict) else {"body": text(data)}
    listed = document.get("attributes")
    attributes = {name: _attribute(value) for name, value in listed.items()} if isinstance(listed, dict) else {}
    system = {**_SYSTEM, "MessageGroupId": _whole(document.get("group"))}
    return Delivery("message-1", "handle", _whole(document.get("body", "")), attributes, system, 0.0, 0.0)


def _whole(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _attribute(value: object) -> "MessageAttributeValueOutputTypeDef":
    if isinstance(value, list):
        return {"DataType": "Binary", "BinaryValue": str(value).encode("utf-8", "replace")}
    return {"DataType": "String", "StringValue": _whole(value)}


def _trace(data: bytes) -> str:
    return traceparent_of({"traceparent": _attribute(text(data))}, "ab" * 32)


def _entry(data: bytes) -> Attributes:
    """Read a quarantine entry as a person does who has it sent in once more."""
    delivery = _delivery(data)
    entry = Entry(delivery, reasons_of(delivery))
    assert entry.sent_at.tzinfo is UTC
    assert named([entry], "1") is entry
    return own_attributes(entry)


def _reasons(data: bytes) -> Attributes:
    """Set a message aside that says of itself what it likes."""
    delivery = _delivery(data)
    refused = BatchRefusedError(ConflictError("bound"), "STL-1", [Refusal(0, "TXN-1", ConflictError("bound"))])
    history = [Failure(2, "hsm_unavailable", datetime(2028, 3, 8, tzinfo=UTC))]
    written = quarantine_attributes(delivery, refused, history, "inbound", 1 << 20)
    assert size_bytes("", written) > 0
    md5_of_attributes(written)
    return written


PARSERS: Final[dict[str, Parser]] = {
    "settlement batch": Parser(lambda data: parse_batch(data, 10), (dumped(_BATCH),), (BatchRefusedError,)),
    "S3 pointer": Parser(
        lambda data: pointer_of(_delivery(data)),
        tuple(
            _message(json.dumps([name, {"s3BucketName": "a-bucket", "s3Key": "a/key"}]), **{size: "1000"})
            for name in _CLASSES
            for size in _SIZES
        ),
        (InvalidInputError,),
    ),
    "S3 pointer's body": Parser(
        lambda data: pointer_of(_delivery(_message(text(data), ExtendedPayloadSize="1000"))),
        (dumped([_CLASSES[0], {"s3BucketName": "a-bucket", "s3Key": "a/key"}]),),
        (InvalidInputError,),
    ),
    "size of a message": Parser(
        lambda data: likely_transactions(_delivery(data), 10),
        (_message(json.dumps(_BATCH)), _message("x", SQSLargePayloadSize="9")),
    ),
    "traceparent": Parser(_trace, (_TRACE.encode(),)),
    "message to set aside": Parser(_reasons, (_message("body", traceparent=_TRACE, more="x"),)),
    "quarantine entry": Parser(_entry, (_message("body", quarantine=json.dumps(_REASONS)),), (InvalidInputError,)),
    "quarantine entry's reasons": Parser(
        lambda data: _entry(_message("body", quarantine=text(data))), (dumped(_REASONS),), (InvalidInputError,)
    ),
    "redrive policy": Parser(
        lambda data: redrive_of({"RedrivePolicy": text(data)}),
        (b'{"maxReceiveCount":"5","deadLetterTargetArn":"arn:aws:sqs:eu-central-1:123456789012:dead"}',),
        (QueueUnavailableError,),
    ),
}
