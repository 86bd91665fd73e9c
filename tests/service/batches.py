"""Settlement batches as those who send and receive them see them, and what holds for every one, whatever happened."""

import collections
import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from signer.audit.verification import verify_directory
from signer.demo.stack import Stack
from signer.verification import read_public_keys, verify_document
from tests.service.running import audit_records

PATIENCE_S = 90.0

Batches = dict[str, dict[str, Any]]


def make_batches(count: int, transactions: int) -> Batches:
    """Batches by their id; PSS differs whenever it is made again: only the ledger can make two deliveries equal."""
    return {
        f"BATCH-{number}": {
            "schema": "settlement-batch/1",
            "batch_id": f"BATCH-{number}",
            "key": "settlement",
            "algorithm": "RSASSA_PSS_SHA_256",
            "transactions": [
                {"transaction_id": f"T-{number}-{i}", "message": {"amount": f"{i}.00"}} for i in range(transactions)
            ],
        }
        for number in range(count)
    }


def send(stack: Stack, batches: Batches) -> None:
    """Put the batches into the inbound queue."""
    for batch in batches.values():
        stack.sqs.send_message(QueueUrl=stack.queues["inbound"], MessageBody=json.dumps(batch))


def inbound_is_empty(stack: Stack) -> bool:
    """Whether no batch waits or is in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = stack.sqs.get_queue_attributes(QueueUrl=stack.queues["inbound"], AttributeNames=names)["Attributes"]  # type: ignore[arg-type] # a literal type of a stub
    return all(int(value) == 0 for value in attributes.values())


class Downstream:
    """Takes everything from the outbound queue and remembers each copy."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.copies: dict[str, list[str]] = collections.defaultdict(list)

    def take_until(self, enough: Callable[[], bool]) -> None:
        """Receive until `enough`."""
        until_s = time.monotonic() + PATIENCE_S
        url = self._stack.queues["outbound"]
        while not enough():
            assert time.monotonic() < until_s, f"only {len(self.copies)} batches came out"
            answer = self._stack.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self.copies[json.loads(message["Body"])["batch_id"]].append(message["Body"])
                self._stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def take_all(self, sent: Batches) -> None:
        """Receive until every batch is out and none is left inbound."""
        self.take_until(lambda: len(self.copies) == len(sent) and inbound_is_empty(self._stack))


def public_key(stack: Stack) -> bytes:
    """Fetch the public key as a peer would."""
    return httpx.get(f"{stack.http_url}/v1/keys/settlement/public-key").content


def assert_nothing_is_lost_or_doubled(stack: Stack, sent: Batches, downstream: Downstream, key: bytes) -> None:
    """Every batch is out as it was sent, its copies equal and valid; each transaction has one digest, on record."""
    keys = read_public_keys([key])
    assert downstream.copies.keys() == sent.keys()
    for batch_id, bodies in downstream.copies.items():
        assert len(set(bodies)) == 1, f"the copies of {batch_id} differ"
        assert all(item.problem is None for item in verify_document(bodies[0].encode(), keys))
        contents = [item["message"] for item in json.loads(bodies[0])["transactions"]]
        assert contents == [item["message"] for item in sent[batch_id]["transactions"]]
    verification = verify_directory(stack.audit_directory)
    assert verification.ok, verification.problem
    records = [record for record in audit_records(stack) if record["operation"] == "sign" and "batch_id" in record]
    digests = {(record["transaction_id"], record["digest"]) for record in records}
    transactions = [item["transaction_id"] for batch in sent.values() for item in batch["transactions"]]
    assert sorted(transaction_id for transaction_id, _ in digests) == sorted(transactions)
    audit_ids = {record["audit_id"] for record in records}
    released = [item for bodies in downstream.copies.values() for item in json.loads(bodies[0])["transactions"]]
    assert all(item["signature"]["audit_id"] in audit_ids for item in released)
