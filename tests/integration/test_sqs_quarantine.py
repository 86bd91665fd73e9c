"""What can never be signed is set aside: whole, unchanged, with a reason for each transaction."""

import json
from typing import Any

import pytest
from mypy_boto3_sqs.type_defs import MessageTypeDef

from signer.errors import AuditUnavailableError
from signer.ports import Claim
from signer.transactions import parse_batch
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, until

ABANDONED = "batch_abandoned"
TOO_MANY = batch(*(f"TXN-{number}" for number in range(11)))
GOOD = {"transaction_id": "TXN-1", "message": {"amount": "1.00"}}
BAD = {"transaction_id": "TXN-2", "payload": "not base64"}


def reasons_of(message: MessageTypeDef) -> dict[str, Any]:
    """Read the reasons beside a quarantined message."""
    reasons: dict[str, Any] = json.loads(message["MessageAttributes"]["quarantine"]["StringValue"])
    return reasons


def codes_of(message: MessageTypeDef) -> list[str]:
    """Give the code of each transaction, in order."""
    entries = reasons_of(message)["transactions"]
    assert [entry["index"] for entry in entries] == list(range(len(entries)))
    return [entry["code"] for entry in entries]


@pytest.mark.parametrize(
    ("body", "code", "codes"),
    [
        ('{"schema": "settlement-batch/1", ', "invalid_json", []),
        ("[]", "invalid_input", []),
        ('{"schema": "a", "schema": "b"}', "duplicate_member", []),
        (batch(schema="settlement-batch/9"), "unknown_schema", ["unknown_schema"] * 3),
        (batch(key="absent"), "not_authorised", ["not_authorised"] * 3),
        (batch(algorithm="RSA_MD5"), "unknown_algorithm", ["unknown_algorithm"] * 3),
        (batch(transactions=[]), "empty_batch", []),
        (batch("TXN-1", "TXN-2", "TXN-1"), "duplicate_transaction_id",
         ["duplicate_transaction_id", ABANDONED, "duplicate_transaction_id"]),
        (TOO_MANY, "too_many_transactions", ["too_many_transactions"] * 10),
        (batch(transactions=[GOOD, BAD]), "invalid_base64", [ABANDONED, "invalid_base64"]),
        (batch(key="payout"), "not_authorised", ["not_authorised"] * 3),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)  # fmt: skip
def test_what_can_never_be_signed_is_set_aside(entrance: Entrance, body: str, code: str, codes: list[str]) -> None:
    """Each kind lands in quarantine bit for bit, with its code, and leaves inbound; nothing of it is signed."""
    message_id = entrance.queues.inbound.put(body)
    (message,) = entrance.queues.quarantine.take()
    assert message["Body"] == body
    reasons = reasons_of(message)
    assert (reasons["code"], codes_of(message)) == (code, codes)
    assert (reasons["message_id"], reasons["receive_count"]) == (message_id, 1)
    assert reasons["queue"] == entrance.queues.inbound.url.rpartition("/")[2]
    entrance.wait_for("quarantined")
    assert entrance.queues.inbound.depth == 0
    assert entrance.queues.outbound.depth == 0
    assert entrance.simulation.key_ring.signed == []


def test_a_transaction_already_signed_with_other_content_is_a_conflict(entrance: Entrance) -> None:
    """A known transaction with new content takes its batch to quarantine, and nothing of it is signed."""
    entrance.queues.inbound.put(batch("TXN-1", "TXN-2"))
    entrance.wait_for("forwarded")
    changed = {"transaction_id": "TXN-2", "message": {"amount": "9.99"}}
    entrance.queues.inbound.put(batch(transactions=[changed, GOOD | {"transaction_id": "TXN-7"}]))
    (message,) = entrance.queues.quarantine.take()
    assert codes_of(message) == ["transaction_conflict", ABANDONED]
    entrance.drain()
    assert entrance.queues.outbound.depth == 1
    assert len(entrance.simulation.key_ring.signed) == 2


def test_a_refusal_outweighs_a_failure(entrance: Entrance) -> None:
    """A batch with a conflict is set aside although its other transaction could be tried again later."""
    entrance.queues.inbound.put(batch("TXN-1"))
    entrance.wait_for("forwarded")
    body = batch(transactions=[GOOD | {"transaction_id": "TXN-9"}, GOOD])
    (busy, _) = parse_batch(body.encode(), 10).requests
    entrance.simulation.ledger.claim([Claim("settlement", "TXN-9", busy.digest, busy.algorithm.name)])
    entrance.queues.inbound.put(body)
    (message,) = entrance.queues.quarantine.take()
    assert codes_of(message) == ["transaction_in_progress", "transaction_conflict"]


def test_the_audit_record_comes_before_the_entry(entrance: Entrance) -> None:
    """Nothing is set aside, and nothing deleted, until the refusal is durably recorded."""
    entrance.simulation.audit.fail_next(AuditUnavailableError("the disk is full"), times=3)
    entrance.queues.inbound.put("not JSON")
    entrance.wait_for("returned", 3)
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["receive_count"] == 4
    entrance.drain()
    (entry,) = entrance.simulation.audit.of("quarantine")
    assert (entry.outcome, entry.error_code) == ("refused", "invalid_json")
    assert entrance.queues.quarantine.depth == 1
    assert entrance.queues.inbound.depth == 0


def test_it_stays_inbound_until_quarantine_has_accepted_it(entrance: Entrance) -> None:
    """While the quarantine queue refuses, the message is not deleted; it is set aside once that queue takes it."""
    with entrance.faults.refused("SendMessageBatch", "AccessDenied", entrance.queues.quarantine.url):
        entrance.queues.inbound.put("not JSON")
        entrance.wait_for("returned", 2)
        assert entrance.faults.of("DeleteMessageBatch") == []
        assert entrance.queues.inbound.depth == 1
    (message,) = entrance.queues.quarantine.take()
    assert message["Body"] == "not JSON"
    entrance.wait_for("quarantined")
    assert entrance.queues.inbound.depth == 0


def test_the_messages_own_attributes_travel_along(entrance: Entrance) -> None:
    """Up to nine attributes stay attributes; the tenth moves into the reasons, since SQS takes ten."""
    own: dict[str, str | bytes] = {f"a{number}": f"v{number}" for number in range(9)}
    entrance.queues.inbound.put("not JSON", **own, b=b"\x00\xff")
    (message,) = entrance.queues.quarantine.take()
    attributes = message["MessageAttributes"]
    assert {name: value["StringValue"] for name, value in attributes.items() if name != "quarantine"} == own
    assert reasons_of(message)["attributes"] == {"b": {"DataType": "Binary", "BinaryValue": "AP8="}}


def test_what_would_not_fit_outbound_is_refused_before_it_is_signed(start_entrance: StartEntrance) -> None:
    """A batch whose signed form exceeds the limit is set aside unsigned; the largest that fits goes out."""
    entrance = start_entrance(max_message_bytes=2048)
    probe = batch("TXN-1", batch_id="STL-0")
    entrance.queues.inbound.put(probe)
    (message,) = entrance.queues.outbound.take()
    sent = entrance.faults.of("SendMessageBatch")[0].parameters["Entries"][0]
    attributes = sum(
        len(name) + len("String") + len(value["StringValue"]) for name, value in sent["MessageAttributes"].items()
    )
    room = 2048 - len(message["Body"].encode()) - attributes
    fits, larger = (
        batch(transactions=[{"transaction_id": name, "message": {"amount": "1250.00", "reference": text}}])
        for name, text in (("TXN-7", "ref of TXN-1" + "x" * room), ("TXN-8", "ref of TXN-1" + "x" * (room + 1)))
    )
    entrance.queues.inbound.put(fits)
    entrance.queues.inbound.put(larger)
    assert json.loads(entrance.queues.outbound.take()[0]["Body"])["transactions"][0]["transaction_id"] == "TXN-7"
    (message,) = entrance.queues.quarantine.take()
    assert (message["Body"], codes_of(message)) == (larger, ["batch_too_large"])
    assert ("settlement", "TXN-8") not in entrance.simulation.ledger.bound


def test_what_turns_out_too_large_after_signing_is_set_aside_too(start_entrance: StartEntrance) -> None:
    """A replay under a former, longer label can be larger than reckoned: it is set aside rather than tried for ever."""
    entrance = start_entrance(max_message_bytes=2048)
    entrance.queues.inbound.put(batch("TXN-1"))
    entrance.wait_for("forwarded")
    entrance.simulation.ledger.rewrite("settlement", "TXN-1", key_label="former-" * 200)
    entrance.queues.inbound.put(batch("TXN-1"))
    (message,) = entrance.queues.quarantine.take()
    assert codes_of(message) == ["batch_too_large"]
    until(lambda: entrance.queues.inbound.depth == 0, "inbound to be empty")


def test_the_line_says_why_and_quotes_nothing(entrance: Entrance) -> None:
    """The log names batch and codes; neither it nor the audit record holds anything of the content."""
    entrance.queues.inbound.put(batch(transactions=[GOOD, BAD]))
    entrance.wait_for("quarantined")
    (line,) = entrance.lines("batch.quarantined")
    assert (line["batch_id"], line["code"], line["transactions"]) == ("STL-1", "invalid_base64", 2)
    assert line["outcomes"] == {ABANDONED: 1, "invalid_base64": 1}
    assert "not base64" not in repr((entrance.log, entrance.simulation.audit.entries))
