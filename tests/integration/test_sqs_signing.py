"""A settlement batch goes in, a signed batch comes out."""

import base64
import hashlib
import json
from typing import Any

import pytest

from signer.demo.stack import Emulator
from signer.signatures import RSASSA_PKCS1_V1_5_SHA_256, verifies
from signer.transactions import parse_batch
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, fresh_queues
from tests.simulators import Simulation


def verify_every_signature(signed: dict[str, Any], inbound: str, simulation: Simulation) -> None:
    """Check each signature with the public key, over the digest of what was sent in."""
    public_key = simulation.key_ring.key("settlement").public_key
    requests = parse_batch(inbound.encode(), 1000).requests
    for request, transaction in zip(requests, signed["transactions"], strict=True):
        value = base64.b64decode(transaction["signature"]["value"])
        assert verifies(public_key, RSASSA_PKCS1_V1_5_SHA_256, request.digest, value)


def test_a_signed_batch_is_what_came_in_and_signatures(entrance: Entrance) -> None:
    """Outbound is the inbound batch in its order, with a signature in each transaction that verifies; then deleted."""
    body = batch("TXN-3", "TXN-1", "TXN-2")
    entrance.queues.inbound.put(body)
    (message,) = entrance.queues.outbound.take()
    signed = json.loads(message["Body"])
    verify_every_signature(signed, body, entrance.simulation)
    for transaction in signed["transactions"]:
        del transaction["signature"]
    assert signed == {**json.loads(body), "schema": "signed-settlement-batch/1"}
    entrance.wait_for("forwarded")
    assert entrance.queues.inbound.depth == 0


def test_it_travels_with_its_batch_id_and_its_hash(entrance: Entrance) -> None:
    """Whoever receives a signed batch can route it and check it without parsing it."""
    entrance.queues.inbound.put(batch())
    (message,) = entrance.queues.outbound.take()
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    digest = hashlib.sha256(message["Body"].encode()).hexdigest()
    traceparent = f"00-{digest[:32]}-{digest[32:48]}-01"
    assert attributes == {"batch_id": "STL-1", "content_sha256": digest, "traceparent": traceparent}


def test_many_batches_at_once_each_come_out_once(start_entrance: StartEntrance) -> None:
    """Forty batches over four workers: each one is forwarded once, and none is left."""
    entrance = start_entrance(max_batches_in_flight=4)
    bodies = {f"STL-{number}": batch(f"TXN-{number}", batch_id=f"STL-{number}") for number in range(40)}
    for body in bodies.values():
        entrance.queues.inbound.put(body)
    entrance.wait_for("forwarded", 40)
    entrance.drain()
    signed = [json.loads(message["Body"]) for message in entrance.queues.outbound.take(40)]
    assert {document["batch_id"] for document in signed} == set(bodies)
    for document in signed:
        verify_every_signature(document, bodies[document["batch_id"]], entrance.simulation)
    assert entrance.queues.inbound.depth == 0


@pytest.mark.parametrize("text", ["\ufffe\uffff", "\x00\x1f", "\u2028 \U0001f600 \x7f"])
def test_characters_that_sqs_refuses_go_out_escaped(entrance: Entrance, text: str) -> None:
    """A string that JSON may hold and SQS may not goes out escaped, not for ever round in circles."""
    body = batch(transactions=[{"transaction_id": "TXN-1", "message": {"text": text}}])
    entrance.queues.inbound.put(body)
    (message,) = entrance.queues.outbound.take()
    signed = json.loads(message["Body"])
    assert signed["transactions"][0]["message"] == {"text": text}
    verify_every_signature(signed, body, entrance.simulation)


def test_the_audit_record_names_queue_and_message(entrance: Entrance) -> None:
    """The record of each signature says which queue and which message asked for it."""
    message_id = entrance.queues.inbound.put(batch("TXN-1"))
    entrance.wait_for("forwarded")
    (entry,) = entrance.simulation.audit.of("sign")
    name = entrance.queues.inbound.url.rpartition("/")[2]
    assert (entry.entrance, entry.caller, entry.channel) == ("sqs", f"queue:{name}", name)
    assert (entry.message_id, entry.batch_id, entry.outcome) == (message_id, "STL-1", "signed")


def test_one_line_and_the_metrics_tell_what_happened(entrance: Entrance) -> None:
    """Each batch leaves one log line with its timings and no content, and is counted."""
    message_id = entrance.queues.inbound.put(batch())
    entrance.wait_for("forwarded")
    (line,) = entrance.log
    assert line["event"] == "batch.forwarded"
    assert (line["batch_id"], line["message_id"], line["receive_count"]) == ("STL-1", message_id, 1)
    assert (line["transactions"], line["outcomes"]) == (3, {"signed": 3})
    assert {"admission_s", "ledger_s", "audit_s", "hsm_sign_s", "forward_s", "total_s"} <= line.keys()
    assert "1250.00" not in repr(line)
    registry = entrance.simulation.metrics.registry
    assert registry.get_sample_value("signer_last_success_timestamp_seconds", {"entrance": "sqs"})
    assert registry.get_sample_value("signer_stage_seconds_count", {"entrance": "sqs", "stage": "forward"}) == 1


def test_fifo_queues_take_what_goes_out(start_entrance: StartEntrance, emulator: Emulator) -> None:
    """Each keeps its group; against duplicates a signed batch has its content's hash, a quarantined one its own id.

    A batch that is sent in again, and is refused again, must be seen again.
    """
    queues = fresh_queues(emulator.sqs, ".fifo")
    start_entrance(queues)
    queues.inbound.put_in_group("bank-7", batch())
    refused_id = queues.inbound.put_in_group("bank-7", "not JSON")
    (signed,), (refused,) = queues.outbound.take(), queues.quarantine.take()
    assert {message["Attributes"]["MessageGroupId"] for message in (signed, refused)} == {"bank-7"}
    digest = hashlib.sha256(signed["Body"].encode()).hexdigest()
    assert signed["Attributes"]["MessageDeduplicationId"] == digest
    assert refused["Attributes"]["MessageDeduplicationId"] == refused_id
