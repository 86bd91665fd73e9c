"""Nothing is lost, nothing is signed two ways, and what comes out again comes out the same."""

import json
from collections.abc import Callable

import pytest

from signer.errors import (
    AuditUnavailableError,
    HsmUnavailableError,
    LedgerUnavailableError,
    SignerError,
)
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch
from tests.simulators import Simulation

CONTENT = "DE89370400440532013000"


class Mystery(Exception):  # noqa: N818 - not an error anybody knows
    """Something nobody thought of, which quotes what it was given."""


def test_the_message_stays_until_outbound_has_accepted_the_batch(entrance: Entrance) -> None:
    """While outbound refuses, inbound keeps the message; it comes again and goes out, signed only once."""
    with entrance.faults.refused("SendMessageBatch", "AccessDenied", entrance.queues.outbound.url):
        entrance.queues.inbound.put(batch())
        entrance.wait_for("returned", 2)
        assert entrance.faults.of("DeleteMessageBatch") == []
        assert entrance.queues.inbound.depth == 1
    entrance.queues.outbound.take()
    entrance.wait_for("forwarded")
    assert len(entrance.simulation.key_ring.signed) == 3
    assert entrance.queues.inbound.depth == 0
    assert entrance.lines("batch.returned")[0]["code"] == "queue_unavailable"
    assert entrance.lines("batch.forwarded")[0]["outcomes"] == {"replayed": 3}


def test_an_answer_lost_on_the_way_makes_a_duplicate_byte_for_byte(entrance: Entrance) -> None:
    """Where outbound accepted a batch and nobody heard of it, the copies that follow are the same bytes."""
    with entrance.faults.answer_lost("SendMessageBatch"):
        entrance.queues.inbound.put(batch())
        entrance.wait_for("returned")
    entrance.wait_for("forwarded")
    entrance.drain()
    copies = entrance.queues.outbound.take(entrance.queues.outbound.depth)
    assert len(copies) >= 2
    assert len({copy["Body"] for copy in copies}) == 1
    assert len({repr(copy["MessageAttributes"]) for copy in copies}) == 1


def test_a_batch_whose_delete_failed_comes_out_again_byte_for_byte(entrance: Entrance) -> None:
    """A message that could not be deleted is delivered again, and forwarded again as the same bytes."""
    with entrance.faults.refused("DeleteMessageBatch", "AccessDenied"):
        entrance.queues.inbound.put(batch())
        entrance.wait_for("returned")
    entrance.wait_for("forwarded")
    entrance.drain()
    copies = entrance.queues.outbound.take(entrance.queues.outbound.depth)
    assert len(copies) >= 2
    assert len({copy["Body"] for copy in copies}) == 1
    assert entrance.queues.inbound.depth == 0


def test_the_same_batch_sent_twice_comes_out_twice_the_same(entrance: Entrance) -> None:
    """A sender that repeats itself gets one signature for each transaction, twice, in the same bytes."""
    for _ in range(2):
        entrance.queues.inbound.put(batch())
    first, second = entrance.queues.outbound.take(2)
    assert first["Body"] == second["Body"]
    assert len(entrance.simulation.key_ring.signed) == 3


def fail_hsm(simulation: Simulation) -> None:
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"), times=2)


def fail_claim(simulation: Simulation) -> None:
    simulation.ledger.fail_next_claim(LedgerUnavailableError("locked"), times=2)


def fail_complete(simulation: Simulation) -> None:
    simulation.ledger.fail_next_complete(LedgerUnavailableError("locked"), times=2)


def fail_audit(simulation: Simulation) -> None:
    simulation.audit.fail_next(AuditUnavailableError("the disk is full"), times=2)


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (fail_hsm, "hsm_unavailable"),
        (fail_claim, "ledger_unavailable"),
        (fail_complete, "ledger_unavailable"),
        (fail_audit, "audit_unavailable"),
    ],
)
def test_what_cannot_be_signed_now_is_left_in_the_queue(
    make_entrance: StartEntrance, fail: Callable[[Simulation], None], code: str
) -> None:
    """While HSM, ledger or audit fail nothing goes out and nothing is deleted; then the batch goes out."""
    entrance = make_entrance()
    fail(entrance.simulation)
    entrance.queues.inbound.put(batch())
    entrance.consumer.start()
    entrance.wait_for("forwarded")
    entrance.drain()
    assert [line["code"] for line in entrance.lines("batch.returned")] == [code] * 2
    assert entrance.lines("batch.forwarded")[0]["receive_count"] == 3
    assert entrance.queues.outbound.depth == 1
    assert (entrance.queues.inbound.depth, entrance.queues.quarantine.depth) == (0, 0)


def test_a_batch_that_failed_stays_hidden_for_a_while(start_entrance: StartEntrance) -> None:
    """What could not be signed now comes again after a pause, not at once."""
    entrance = start_entrance(retry_after_s=600)
    entrance.simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    entrance.queues.inbound.put(batch())
    entrance.wait_for("returned")
    (call,) = entrance.faults.of("ChangeMessageVisibilityBatch")
    (entry,) = call.parameters["Entries"]
    assert 450 <= entry["VisibilityTimeout"] <= 900
    assert entrance.queues.inbound.look() == []
    assert entrance.queues.inbound.depth == 1


def test_what_is_downstream_already_comes_again_soon(start_entrance: StartEntrance) -> None:
    """A FIFO queue takes a copy for what it is for five minutes only, however often the delivery failed before."""
    entrance = start_entrance(retry_after_s=600)
    with entrance.faults.refused("DeleteMessageBatch", "AccessDenied"):
        entrance.queues.inbound.put(batch())
        entrance.wait_for("returned")
    (call,) = entrance.faults.of("ChangeMessageVisibilityBatch")
    (entry,) = call.parameters["Entries"]
    assert entry["VisibilityTimeout"] <= 60


@pytest.mark.parametrize("error", [Mystery(CONTENT), ValueError(CONTENT), SignerError("a defect of ours")])
def test_the_unknown_is_never_the_batchs_fault(start_entrance: StartEntrance, error: Exception) -> None:
    """An error nobody knows neither deletes nor sets aside, and the only worker lives to sign the batch later."""
    entrance = start_entrance(max_batches_in_flight=1)
    entrance.simulation.key_ring.fail_next(error, times=3)
    entrance.queues.inbound.put(batch())
    entrance.wait_for("forwarded")
    entrance.drain()
    assert entrance.count("returned") == 3
    assert (entrance.queues.quarantine.depth, entrance.queues.outbound.depth) == (0, 1)
    lines = entrance.lines("batch.returned")
    assert {line["code"] for line in lines} == {"internal_error"}
    if not isinstance(error, SignerError):
        assert lines[0]["error_type"] == type(error).__name__
        assert any("simulators.py" in frame for frame in lines[0]["traceback"])


def test_no_error_of_awss_quotes_the_message_in_the_log(entrance: Entrance) -> None:
    """Botocore prints the parameters of a call it finds wrong; none of that reaches the log."""
    entrance.simulation.key_ring.fail_next(Mystery(CONTENT))
    body = batch(transactions=[{"transaction_id": "TXN-1", "message": {"creditor": CONTENT}}])

    def spoil(params: dict[str, object], **_: object) -> None:
        params["Entries"] = {"spoilt": params["Entries"]}

    entrance.client.meta.events.register("provide-client-params.sqs.SendMessageBatch", spoil)
    entrance.queues.inbound.put(body)
    entrance.wait_for("returned", 2)
    entrance.drain()
    assert entrance.lines("batch.returned")[1]["reason"] == "SendMessageBatch failed: ParamValidationError"
    assert CONTENT not in repr(entrance.log)
    assert entrance.queues.inbound.depth == 1


def test_a_batch_is_not_forwarded_before_its_audit_record(entrance: Entrance) -> None:
    """At the moment a batch is sent, each of its signatures has its record."""
    recorded = []

    def look(**_: object) -> None:
        recorded.append({entry.transaction_id for entry in entrance.simulation.audit.of("sign")})

    entrance.client.meta.events.register("before-send.sqs.SendMessageBatch", look)
    entrance.queues.inbound.put(batch("TXN-1", "TXN-2"))
    (message,) = entrance.queues.outbound.take()
    assert recorded == [{"TXN-1", "TXN-2"}]
    ids = {transaction["signature"]["audit_id"] for transaction in json.loads(message["Body"])["transactions"]}
    assert len(ids) == 2
