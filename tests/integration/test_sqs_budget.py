"""How much is taken in at once: transactions are what counts, not messages."""

import threading

import pytest

from signer.demo.stack import Emulator
from signer.sqs import consumer
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import Queue, batch, fresh_queues, until


def send(inbound: Queue, batches: int, transactions: int) -> None:
    """Put so many batches of so many transactions into a standard queue."""
    for number in range(batches):
        inbound.put(batch(*(f"TXN-{number}-{index}" for index in range(transactions)), batch_id=f"STL-{number}"))


def at_hand(entrance: Entrance, state: str) -> float | None:
    """Give the transactions at hand, as the metrics have them."""
    registry = entrance.simulation.metrics.registry
    return registry.get_sample_value("signer_queue_transactions", {"state": state})


def extended(entrance: Entrance) -> set[str]:
    """Give the receipt handles that a beat was made for."""
    beats = entrance.faults.of("ChangeMessageVisibilityBatch")
    return {entry["ReceiptHandle"] for call in beats for entry in call.parameters["Entries"]}


def test_receiving_ends_where_the_transactions_at_hand_reach_the_budget(make_entrance: StartEntrance) -> None:
    """Room for five transactions brought five messages: what else is in the queue stays there for others.

    One batch is at work, four wait under the heartbeat.
    """
    entrance = make_entrance(visibility_timeout_s=5, max_transactions_in_flight=5)
    send(entrance.queues.inbound, batches=7, transactions=3)
    with entrance.simulation.key_ring.held() as held:
        entrance.consumer.start()
        held.wait_for(1)
        assert (at_hand(entrance, "at_work"), at_hand(entrance, "waiting")) == (3, 12)
        until(lambda: len(extended(entrance)) == 5, "a beat for each of the five")
        assert held.waiting == 1
        assert len(entrance.queues.inbound.look()) == 2
        assert [call.parameters["MaxNumberOfMessages"] for call in entrance.faults.of("ReceiveMessage")] == [5]
    entrance.wait_for("forwarded", 5)
    entrance.drain()
    assert {line["receive_count"] for line in entrance.lines("batch.forwarded")} == {1}
    assert (at_hand(entrance, "at_work"), at_hand(entrance, "waiting")) == (0, 0)


def test_a_batch_larger_than_the_budget_is_signed_all_the_same(start_entrance: StartEntrance) -> None:
    """Ten transactions pass where four may be at hand, and small ones pass before and after."""
    entrance = start_entrance(max_transactions_in_flight=4)
    for size in (1, 10, 1):
        send(entrance.queues.inbound, batches=1, transactions=size)
    entrance.wait_for("forwarded", 3)
    assert sorted(line["transactions"] for line in entrance.lines("batch.forwarded")) == [1, 1, 10]


def test_small_batches_are_signed_beside_a_large_one(start_entrance: StartEntrance) -> None:
    """While nine transactions of ten are at work, there is room for one more, and it does not wait for them."""
    entrance = start_entrance(max_transactions_in_flight=10)
    with entrance.simulation.key_ring.held() as held:
        send(entrance.queues.inbound, batches=1, transactions=9)
        held.wait_for(1)
        entrance.queues.inbound.put(batch("TXN-small"))
        held.wait_for(2)
    entrance.wait_for("forwarded", 2)


@pytest.fixture
def held_in_line(make_entrance: StartEntrance, emulator: Emulator) -> tuple[Entrance, threading.Event]:
    """An entrance that has begun one batch of a group and holds two more; and what lets it begin, set by now."""
    entrance = make_entrance(fresh_queues(emulator.sqs, ".fifo"), visibility_timeout_s=5)
    for name in ("a1", "a2", "a3"):
        entrance.queues.inbound.put_in_group("a", batch(f"TXN-{name}", batch_id=name))
    able = threading.Event()
    able.set()
    with entrance.simulation.key_ring.held() as held:
        entrance.consumer.start(able.is_set)
        held.wait_for(1)
        entrance.wait_for("received", 3)
        able.clear()
    entrance.wait_for("forwarded")
    return entrance, able


def test_what_is_held_when_the_hsm_goes_away_waits_and_spends_nothing(
    held_in_line: tuple[Entrance, threading.Event],
) -> None:
    """While nothing can be signed, batches that were received before wait under the heartbeat, each at its receive."""
    entrance, able = held_in_line
    beats = len(entrance.faults.of("ChangeMessageVisibilityBatch"))
    until(lambda: len(entrance.faults.of("ChangeMessageVisibilityBatch")) >= beats + 4, "more than a timeout to pass")
    assert (entrance.count("forwarded"), entrance.queues.inbound.look()) == (1, [])
    able.set()
    entrance.wait_for("forwarded", 3)
    assert [line["receive_count"] for line in entrance.lines("batch.forwarded")] == [1, 1, 1]


def test_what_waits_too_long_is_left_to_others(
    monkeypatch: pytest.MonkeyPatch, held_in_line: tuple[Entrance, threading.Event]
) -> None:
    """Where nothing can be signed for long, batches held here go back in order: another service may be able to."""
    monkeypatch.setattr(consumer, "_LONGEST_WAIT_S", 0.0)
    entrance, _ = held_in_line
    entrance.wait_for("returned", 2)
    assert {line["code"] for line in entrance.lines("batch.returned")} == {"waited_too_long"}
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in entrance.queues.inbound.look()] == ["2"] * 2
