"""A message is worked on only while it is ours: the heartbeat keeps it so, and a lost lease stops everything."""

import time
from contextlib import closing
from typing import Any

import pytest

from signer.demo.stack import Emulator
from tests.chaos.faults import hung
from tests.chaos.proxy import Loop, Proxy
from tests.integration.aws_faults import Call
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, until

SHORTEST = {"visibility_timeout_s": 5}


def beats(entrance: Entrance) -> list[Call]:
    """Give the calls of the heartbeat so far."""
    return entrance.faults.of("ChangeMessageVisibilityBatch")


def test_the_heartbeat_keeps_a_slow_batch_hidden(start_entrance: StartEntrance, emulator: Emulator) -> None:
    """A batch that takes longer than its visibility timeout is shown to nobody else, and goes out once.

    The first beat hangs: it is given up and made again while the lease runs.
    """
    with closing(Loop()) as loop, closing(Proxy(loop, emulator.url)) as proxy:
        proxy.next("ChangeMessageVisibilityBatch", hung)
        entrance = start_entrance(**SHORTEST, max_batches_in_flight=1, endpoint_url=proxy.url)
        with entrance.simulation.key_ring.held() as held:
            entrance.queues.inbound.put(batch())
            held.wait_for(1)
            # The fourth beat comes after four thirds of the timeout; one was made twice.
            while len(beats(entrance)) < 5:
                assert entrance.queues.inbound.look() == []
                time.sleep(0.05)
        entrance.wait_for("forwarded")
        entrance.drain()
    assert (entrance.queues.outbound.depth, entrance.queues.inbound.depth) == (1, 0)


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"])
def test_a_lost_lease_stops_the_forward(start_entrance: StartEntrance, code: str) -> None:
    """Once SQS has said that the message is no longer ours, its batch is neither forwarded nor deleted."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=1)
    with entrance.faults.leases_refused(code), entrance.simulation.key_ring.held():
        entrance.queues.inbound.put(batch())
        until(lambda: bool(entrance.lines("lease.lost")), "the lease to be lost")
        entrance.consumer.drain(0)
    entrance.wait_for("lost_lease")
    entrance.drain()
    assert entrance.faults.of("SendMessageBatch") == entrance.faults.of("DeleteMessageBatch") == []
    assert (entrance.queues.outbound.depth, entrance.queues.inbound.depth) == (0, 1)


@pytest.mark.parametrize("body", [batch(), "not JSON"])
def test_a_lease_lost_while_sending_stops_the_delete(start_entrance: StartEntrance, body: str) -> None:
    """A lease lost while the batch, or its quarantine entry, is being sent leaves the message to its new owner."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=1)
    with entrance.faults.leases_refused("MessageNotInflight"), entrance.faults.delayed("SendMessageBatch"):
        entrance.queues.inbound.put(body)
        until(lambda: bool(entrance.lines("lease.lost")), "the lease to be lost")
        entrance.consumer.drain(0)
    entrance.wait_for("lost_lease")
    entrance.drain()
    assert entrance.faults.of("DeleteMessageBatch") == []
    assert entrance.queues.outbound.depth + entrance.queues.quarantine.depth == 1
    assert entrance.queues.inbound.depth == 1


@pytest.mark.parametrize("body", [batch(), "not JSON"])
def test_a_lease_lost_before_sending_stops_the_send(start_entrance: StartEntrance, body: str) -> None:
    """Beats missed for longer than the timeout: another consumer has the message, and we send nothing any more."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=1)
    with entrance.faults.refused("ChangeMessageVisibilityBatch", "AccessDenied"), entrance.simulation.audit.held():
        entrance.queues.inbound.put(body)
        until(lambda: bool(entrance.count("received")), "the message to be received")
        entrance.queues.inbound.take()
        entrance.consumer.drain(0)
    entrance.wait_for("lost_lease")
    entrance.drain()
    assert entrance.faults.of("SendMessageBatch") == entrance.faults.of("DeleteMessageBatch") == []
    assert entrance.lines("heartbeat.missed")
    assert entrance.queues.inbound.depth == 1


def test_a_message_delivered_again_meanwhile_is_not_worked_on_twice(start_entrance: StartEntrance) -> None:
    """The second delivery of a message in flight only brings a newer receipt handle, and that one deletes it."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=2)
    with entrance.simulation.key_ring.held() as held:
        entrance.queues.inbound.put(batch())
        until(lambda: bool(beats(entrance)), "a beat")
        handle = beats(entrance)[0].parameters["Entries"][0]["ReceiptHandle"]

        shown_at_s = 0.0
        while not entrance.lines("batch.in_flight_already"):
            # Once a second until it comes: a beat that is under way hides it anew.
            if time.monotonic() - shown_at_s > 1.0:
                shown_at_s = time.monotonic()
                entrance.queues.inbound.show_again(handle)
            time.sleep(0.02)
        assert held.waiting == 1
    entrance.wait_for("forwarded")
    entrance.drain()
    assert len(entrance.faults.of("DeleteMessageBatch")) == 1
    assert (entrance.queues.outbound.depth, entrance.queues.inbound.depth) == (1, 0)


def test_a_lost_message_that_comes_back_to_us_is_ours_again(start_entrance: StartEntrance) -> None:
    """A lease that was lost lives again when the message is delivered here while its batch is still in flight."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=2)
    with entrance.simulation.key_ring.held():
        with entrance.faults.leases_refused("ReceiptHandleIsInvalid"):
            entrance.queues.inbound.put(batch())
            until(lambda: bool(entrance.lines("lease.lost")), "the lease to be lost")
        until(lambda: bool(entrance.lines("batch.in_flight_already")), "the second delivery")
    entrance.wait_for("forwarded")
    entrance.drain()
    assert (entrance.count("lost_lease"), entrance.queues.inbound.depth) == (0, 0)


def test_a_beat_is_for_ten_messages_at_most(start_entrance: StartEntrance) -> None:
    """Twelve messages in flight are extended by calls of ten, which is all that SQS takes."""
    entrance = start_entrance(**SHORTEST, max_batches_in_flight=12)
    with entrance.simulation.key_ring.held():
        for number in range(12):
            entrance.queues.inbound.put(batch(f"TXN-{number}"))
        until(lambda: len({entry["ReceiptHandle"] for entry in entries(entrance)}) == 12, "a beat for each of them")
    entrance.wait_for("forwarded", 12)
    assert max(len(call.parameters["Entries"]) for call in beats(entrance)) == 10


def entries(entrance: Entrance) -> list[dict[str, Any]]:
    """Give every entry of every beat."""
    return [entry for call in beats(entrance) for entry in call.parameters["Entries"]]
