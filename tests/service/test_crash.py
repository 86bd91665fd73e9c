"""The power goes in the middle of the work: everything comes out all the same, once over one content each."""

import collections
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from signer.audit.verification import verify_directory
from signer.demo.processes import Program
from signer.demo.stack import Stack
from signer.verification import read_public_keys, verify_document

BATCHES = 20
TRANSACTIONS = 20
PATIENCE_S = 90.0
TORN_LINE = b'{"v":1,"chain":"half a rec'


def send_batches(stack: Stack) -> dict[str, dict[str, Any]]:
    """Put the batches into the inbound queue."""
    batches = {
        f"CRASH-{number}": {
            "schema": "settlement-batch/1",
            "batch_id": f"CRASH-{number}",
            "key": "settlement",
            # PSS differs whenever it is made again: only the ledger can make two deliveries equal.
            "algorithm": "RSASSA_PSS_SHA_256",
            "transactions": [
                {"transaction_id": f"T-{number}-{i}", "message": {"amount": f"{i}.00"}} for i in range(TRANSACTIONS)
            ],
        }
        for number in range(BATCHES)
    }
    for batch in batches.values():
        stack.sqs.send_message(QueueUrl=stack.queues["inbound"], MessageBody=json.dumps(batch))
    return batches


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


def inbound_is_empty(stack: Stack) -> bool:
    """Whether no batch waits or is in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = stack.sqs.get_queue_attributes(QueueUrl=stack.queues["inbound"], AttributeNames=names)["Attributes"]  # type: ignore[arg-type] # a literal type of a stub
    return all(int(value) == 0 for value in attributes.values())


def audit_records(stack: Stack) -> list[dict[str, Any]]:
    """Every record of the audit log."""
    files = sorted(stack.audit_directory.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def tear_the_last_line(stack: Stack) -> None:
    """Leave what a power cut in the middle of a write leaves: the beginning of a record."""
    last = max(stack.audit_directory.glob("*.jsonl"))
    with last.open("ab") as file:
        file.write(TORN_LINE)


@pytest.mark.timeout(240)
def test_killed_in_the_middle_everything_comes_out_once(stack: Stack) -> None:
    """Three times killed with -9 among 20 batches: all 20 come out, with equal copies and one digest a transaction.

    The audit chain verifies; its torn last line was moved aside, recorded and logged, not dropped.
    """
    sent = send_batches(stack)
    downstream = Downstream(stack)
    for enough in (1, 5, 10):
        service = stack.start()
        downstream.take_until(lambda enough=enough: len(downstream.copies) >= enough)  # type: ignore[misc] # bound now
        service.kill()
    tear_the_last_line(stack)
    service = stack.start()
    downstream.take_until(lambda: len(downstream.copies) == BATCHES and inbound_is_empty(stack))
    (stack.directory / "public-key.pem").write_bytes(public_key(stack))
    assert service.terminate() == 0

    keys = read_public_keys([(stack.directory / "public-key.pem").read_bytes()])
    for batch_id, bodies in downstream.copies.items():
        assert len(set(bodies)) == 1, f"the copies of {batch_id} differ"
        assert all(item.problem is None for item in verify_document(bodies[0].encode(), keys))
        contents = [item["message"] for item in json.loads(bodies[0])["transactions"]]
        assert contents == [item["message"] for item in sent[batch_id]["transactions"]]
    assert_the_audit_log_is_whole(stack, downstream)


def assert_the_audit_log_is_whole(stack: Stack, downstream: Downstream) -> None:
    """Chain unbroken, the repair told, one digest for each transaction, and a record behind every signature."""
    verification = verify_directory(stack.audit_directory)
    assert verification.ok, verification.problem
    # A kill may have torn a line of its own accord, before the one that was torn for certain.
    assert len(verification.repairs) >= 1
    assert "audit.repair" in (stack.directory / "serve.log").read_text()
    assert TORN_LINE in [path.read_bytes() for path in stack.audit_directory.glob("torn-*")]
    records = audit_records(stack)
    digests = collections.defaultdict(set)
    for record in records:
        if record["operation"] == "sign":
            digests[record["transaction_id"]].add(record["digest"])
    assert len(digests) == BATCHES * TRANSACTIONS
    assert all(len(found) == 1 for found in digests.values())
    audit_ids = {record["audit_id"] for record in records}
    released = [item for bodies in downstream.copies.values() for item in json.loads(bodies[0])["transactions"]]
    assert all(item["signature"]["audit_id"] in audit_ids for item in released)


def public_key(stack: Stack) -> bytes:
    """Fetch the public key as a peer would."""
    return httpx.get(f"{stack.http_url}/v1/keys/settlement/public-key").content


def test_sigterm_leaves_nothing_half_done(stack: Stack) -> None:
    """Terminated among its work it ends with status 0, and every batch is either out or still in the queue, once."""
    send_batches(stack)
    downstream = Downstream(stack)
    service: Program = stack.start()
    downstream.take_until(lambda: len(downstream.copies) >= 3)
    assert service.terminate() == 0
    successor = stack.start()
    downstream.take_until(lambda: len(downstream.copies) == BATCHES and inbound_is_empty(stack))
    assert successor.terminate() == 0
    assert all(len(bodies) == 1 for bodies in downstream.copies.values())
    assert not [record for record in audit_records(stack) if record["outcome"] == "replayed"]
