"""A large batch and a small one side by side: the small one waits for a bounded share of the large one, not for all."""

import json

from signer.demo.stack import Stack
from tests.service.batches import Batches, make_batches, send
from tests.service.running import audit_records, logged, running, until

LARGE = 10_000


def put_by_pointer(stack: Stack, batches: Batches) -> None:
    """Send batches whose bodies lie in S3, as the Extended Client does."""
    for batch_id, batch in batches.items():
        body, key = json.dumps(batch).encode(), f"inbound/{batch_id}"
        stack.s3.put_object(Bucket=stack.bucket, Key=key, Body=body)
        pointer = [
            "software.amazon.payloadoffloading.PayloadS3Pointer",
            {"s3BucketName": stack.bucket, "s3Key": key},
        ]
        stack.sqs.send_message(
            QueueUrl=stack.queues["inbound"],
            MessageBody=json.dumps(pointer),
            MessageAttributes={"ExtendedPayloadSize": {"DataType": "Number", "StringValue": str(len(body))}},
        )


def test_a_batch_of_one_does_not_wait_for_a_batch_of_ten_thousand(stack: Stack) -> None:
    """The large one lies first in the queue; each small one behind it is signed, recorded and out before it is."""
    large, small = make_batches(1, LARGE), make_batches(6, 1)
    small.pop("BATCH-0")
    # Two sessions of a network HSM need longer for ten thousand than a batch is given.
    stack.environment |= {"SIGNER_SIGNING_TIMEOUT_S": "300", "SIGNER_LEDGER__LEASE_S": "330"}
    put_by_pointer(stack, large)
    send(stack, small)
    with running(stack):
        until(lambda: len(logged(stack, "batch.forwarded")) > len(small), "all of them are out")
    came = [line["batch_id"] for line in logged(stack, "batch.forwarded")]
    assert came[-1] == "BATCH-0"
    assert sorted(came[:-1]) == sorted(small)
    signed = [record["batch_id"] for record in audit_records(stack) if record["operation"] == "sign"]
    assert len(signed) == LARGE + len(small)
    # All of the small ones are on record before the last slice of the large one is.
    assert set(signed[-LARGE // 2 :]) == {"BATCH-0"}
