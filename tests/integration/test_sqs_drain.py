"""Starting, stopping and waiting: nothing half done is left behind, and nothing is taken that cannot be done."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, until


def stopping(entrance: Entrance) -> bool:
    """Whether the drain has begun."""
    return bool(entrance.consumer.problems())


def test_drain_finishes_what_is_in_flight_and_beats_until_then(start_entrance: StartEntrance) -> None:
    """A batch in flight at SIGTERM goes out, and stays hidden from others until it has."""
    entrance = start_entrance(visibility_timeout_s=5, max_batches_in_flight=1)
    with ThreadPoolExecutor() as pool, entrance.simulation.key_ring.held() as held:
        entrance.queues.inbound.put(batch())
        held.wait_for(1)
        drained = pool.submit(entrance.consumer.drain, 30)
        until(lambda: stopping(entrance), "the drain to begin")
        until(lambda: len(entrance.faults.of("ChangeMessageVisibilityBatch")) >= 4, "four beats while draining")
        assert entrance.queues.inbound.look() == []
        assert not drained.done()
        held.let_go()
        assert drained.result()
    assert (entrance.queues.outbound.depth, entrance.queues.inbound.depth) == (1, 0)


def test_what_the_last_poll_brings_is_handed_back_at_once(start_entrance: StartEntrance) -> None:
    """A poll under way at SIGTERM is waited for; what it brings is visible to others at once, and untouched."""
    entrance = start_entrance(visibility_timeout_s=600)
    with ThreadPoolExecutor() as pool, entrance.faults.delayed("ReceiveMessage") as gate:
        gate.wait_until_reached()
        drained = pool.submit(entrance.consumer.drain, 30)
        until(lambda: stopping(entrance), "the drain to begin")
        for _ in range(2):
            entrance.queues.inbound.put(batch())
        gate.open()
        assert drained.result()
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in entrance.queues.inbound.look()] == ["2"] * 2
    assert entrance.simulation.ledger.bound == {}
    assert entrance.count("returned") == 2


def test_a_drain_that_takes_too_long_says_so(start_entrance: StartEntrance) -> None:
    """A drain with a batch that does not end gives it up in time, for others to have at once; it may be asked again."""
    entrance = start_entrance(visibility_timeout_s=600)
    with entrance.simulation.key_ring.held() as held:
        entrance.queues.inbound.put(batch())
        held.wait_for(1)
        assert not entrance.consumer.drain(2)
        assert len(entrance.queues.inbound.look()) == 1
    assert entrance.consumer.drain(30)
    assert entrance.count("lost_lease") == 1
    assert entrance.faults.of("SendMessageBatch") == entrance.faults.of("DeleteMessageBatch") == []


def test_one_that_never_ran_drains_too(make_entrance: StartEntrance) -> None:
    """A service that fails while starting can close its consumer all the same."""
    assert make_entrance().consumer.drain(1)


def test_no_more_is_received_than_there_are_free_workers(start_entrance: StartEntrance) -> None:
    """With every worker busy, further messages stay where others can see them."""
    entrance = start_entrance(max_batches_in_flight=3)
    with entrance.simulation.key_ring.held():
        for number in range(5):
            entrance.queues.inbound.put(batch(f"TXN-{number}"))
        entrance.wait_for("received", 3)
        assert len(entrance.queues.inbound.look()) == 2
    entrance.wait_for("forwarded", 3)


def test_nothing_is_received_while_the_service_cannot_sign(make_entrance: StartEntrance) -> None:
    """While the gate is shut no message is received, so that a fault of the HSM does not use up receive counts."""
    entrance = make_entrance()
    looked, able = threading.Semaphore(0), threading.Event()

    def may_poll() -> bool:
        looked.release()
        return able.is_set()

    entrance.queues.inbound.put(batch())
    entrance.consumer.start(may_poll)
    for _ in range(3):
        assert looked.acquire(timeout=20)
    assert entrance.faults.of("ReceiveMessage") == []
    able.set()
    entrance.wait_for("forwarded")
    assert entrance.lines("batch.forwarded")[0]["receive_count"] == 1


def test_an_outage_of_the_queue_is_said_once_and_outlived(make_entrance: StartEntrance) -> None:
    """While receiving fails, readiness has a reason and the log one line; then batches come in again."""
    entrance = make_entrance()
    with entrance.faults.refused("ReceiveMessage", "AccessDenied"):
        entrance.consumer.start()
        until(lambda: len(entrance.faults.of("ReceiveMessage")) >= 3, "three failures")
        assert entrance.consumer.problems() == (
            "the inbound queue does not answer: ReceiveMessage failed: AccessDenied",
        )
    entrance.queues.inbound.put(batch())
    entrance.wait_for("forwarded")
    assert entrance.consumer.problems() == ()
    assert len(entrance.lines("queue.unavailable")) == len(entrance.lines("queue.available")) == 1


@pytest.mark.parametrize("code", ["RequestThrottled", "ServiceUnavailable"])
def test_throttling_is_outlived(make_entrance: StartEntrance, code: str) -> None:
    """A queue that throttles or is down for a while costs time and nothing else."""
    entrance = make_entrance()
    entrance.queues.inbound.put(batch())
    with entrance.faults.refused("ReceiveMessage", code):
        entrance.consumer.start()
        until(lambda: bool(entrance.lines("queue.unavailable")), "the outage to be said")
    entrance.wait_for("forwarded")
    entrance.drain()
    assert (entrance.queues.outbound.depth, entrance.queues.inbound.depth) == (1, 0)


def test_an_answer_nobody_understands_does_not_end_the_receiver(make_entrance: StartEntrance) -> None:
    """An answer that makes no sense is logged with where it arose, and the queue is polled again."""
    entrance = make_entrance()
    with entrance.faults.garbled("ReceiveMessage"):
        entrance.consumer.start()
        until(lambda: bool(entrance.lines("queue.unavailable")), "the outage to be said")
    entrance.queues.inbound.put(batch())
    entrance.wait_for("forwarded")
    (line,) = entrance.lines("queue.unavailable")
    assert line["reason"] == "KeyError"
    assert any("inbound.py" in frame for frame in line["traceback"])


def test_the_lease_is_asked_for_with_the_message(start_entrance: StartEntrance) -> None:
    """Each receive names the visibility timeout, and polls no longer than a third of it."""
    entrance = start_entrance(visibility_timeout_s=9, wait_s=20)
    until(lambda: bool(entrance.faults.of("ReceiveMessage")), "a receive")
    parameters = entrance.faults.of("ReceiveMessage")[0].parameters
    assert (parameters["VisibilityTimeout"], parameters["WaitTimeSeconds"]) == (9, 3)
    assert parameters["MaxNumberOfMessages"] == 10
