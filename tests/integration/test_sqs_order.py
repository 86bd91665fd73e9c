"""FIFO queues: what belongs together is worked off, and comes out, in the order in which it was sent in.

SQS itself gives nothing of a group while a message of it is in flight, and so does the stand-in; yet one receive can
bring several of one group, and a worker that fails must not let the later ones pass.
"""

import json
import random
from collections import defaultdict

import pytest

from signer.demo.stack import Emulator
from signer.errors import AuditUnavailableError, HsmUnavailableError
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import Queues, batch, fresh_queues, until


@pytest.fixture
def fifo(emulator: Emulator) -> Queues:
    return fresh_queues(emulator.sqs, ".fifo")


def send(queues: Queues, group_id: str, *batch_ids: str) -> None:
    """Send in batches of one group, of one transaction each."""
    for batch_id in batch_ids:
        queues.inbound.put_in_group(group_id, batch(f"TXN-{batch_id}", batch_id=batch_id))


def sent_out(entrance: Entrance) -> dict[str, list[str]]:
    """Give the batch ids of each group, in the order in which they were sent out."""
    ids: dict[str, list[str]] = defaultdict(list)
    for call in entrance.faults.of("SendMessageBatch"):
        parameters = call.parameters
        if parameters["QueueUrl"] == entrance.queues.outbound.url:
            for entry in parameters["Entries"]:
                ids[entry["MessageGroupId"]].append(entry["MessageAttributes"]["batch_id"]["StringValue"])
    return ids


def test_the_stand_in_blocks_a_group_as_sqs_does(fifo: Queues) -> None:
    """While one message of a group is in flight nobody is given another; deduplication outlives a delete.

    What else it does otherwise: it fills a receive in the order of the queue, where SQS prefers messages of one group,
    and it ignores `ReceiveRequestAttemptId`. Neither makes a difference to us.
    """
    for body in ("first", "second"):
        fifo.inbound.put_in_group("a", body)
    first, second = fifo.inbound.look()
    assert (first["Body"], second["Body"]) == ("first", "second")
    fifo.inbound.show_again(second["ReceiptHandle"])
    assert fifo.inbound.look() == []
    fifo.inbound.show_again(first["ReceiptHandle"])
    assert [message["Body"] for message in fifo.inbound.look()] == ["first", "second"]


def test_one_of_a_group_is_worked_on_at_a_time(make_entrance: StartEntrance, fifo: Queues) -> None:
    """Of five received together, three of one group, only the first of each group is begun; all come out in order."""
    entrance = make_entrance(fifo)
    send(fifo, "a", "a1", "a2", "a3")
    send(fifo, "b", "b1", "b2")
    with entrance.simulation.key_ring.held() as held:
        entrance.consumer.start()
        entrance.wait_for("received", 5)
        held.wait_for(2)
        assert {name for _, name in entrance.simulation.ledger.bound} == {"TXN-a1", "TXN-b1"}
    entrance.wait_for("forwarded", 5)
    assert sent_out(entrance) == {"a": ["a1", "a2", "a3"], "b": ["b1", "b2"]}


def test_when_one_goes_back_those_behind_it_do_too(make_entrance: StartEntrance, fifo: Queues) -> None:
    """The first of three fails: nobody works on the other two, which go back at once; then all come out in order."""
    entrance = make_entrance(fifo)
    entrance.simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    send(fifo, "a", "a1", "a2", "a3")
    entrance.consumer.start()
    entrance.wait_for("forwarded", 3)
    assert sent_out(entrance) == {"a": ["a1", "a2", "a3"]}
    codes = [line["code"] for line in entrance.lines("batch.returned")]
    assert codes == ["hsm_unavailable", "behind_another", "behind_another"]
    assert [line["receive_count"] for line in entrance.lines("batch.forwarded")] == [2, 2, 2]


def test_behind_a_lost_lease_nothing_is_worked_on(make_entrance: StartEntrance, fifo: Queues) -> None:
    """Whoever has the first message of a group now has the say over the group."""
    entrance = make_entrance(fifo, visibility_timeout_s=5)
    send(fifo, "a", "a1", "a2")
    with entrance.simulation.key_ring.held() as held:
        entrance.consumer.start()
        held.wait_for(1)
        with entrance.faults.leases_refused("MessageNotInflight"):
            until(lambda: len(entrance.lines("lease.lost")) == 2, "both leases to be lost")
            entrance.consumer.drain(0)
    entrance.wait_for("lost_lease")
    entrance.drain()
    assert {name for _, name in entrance.simulation.ledger.bound} == {"TXN-a1"}
    assert sent_out(entrance) == {}


def test_a_group_goes_on_behind_what_is_set_aside(make_entrance: StartEntrance, fifo: Queues) -> None:
    """A batch that can never be signed does not block its group for ever; it keeps its group in quarantine."""
    entrance = make_entrance(fifo)
    fifo.inbound.put_in_group("a", "not JSON")
    send(fifo, "a", "a2")
    entrance.consumer.start()
    entrance.wait_for("forwarded")
    (message,) = fifo.quarantine.take()
    assert message["Attributes"]["MessageGroupId"] == "a"
    assert json.loads(message["MessageAttributes"]["quarantine"]["StringValue"])["group_id"] == "a"


def test_two_services_that_fail_now_and_then_keep_every_order(make_entrance: StartEntrance, fifo: Queues) -> None:
    """Four groups of ten batches, two services, every third record in vain: each group comes out as it went in."""
    entrances = [make_entrance(fifo), make_entrance(fifo)]
    chance = random.Random(4)  # noqa: S311 - a test's own dice
    sent: dict[str, list[str]] = defaultdict(list)
    for number in range(40):
        group_id = chance.choice("abcd")
        sent[group_id].append(f"{group_id}{number}")
        send(fifo, group_id, sent[group_id][-1])
    for entrance in entrances:
        for _ in range(20):
            entrance.simulation.audit.fail_next(AuditUnavailableError("now and then"), after=2)
    for entrance in entrances:
        entrance.consumer.start()
    until(lambda: sum(entrance.count("forwarded") for entrance in entrances) == 40, "40 batches forwarded")
    assert min(entrance.count("returned") for entrance in entrances) > 0
    out: dict[str, list[str]] = defaultdict(list)
    while messages := fifo.outbound.look():
        for message in messages:
            out[message["Attributes"]["MessageGroupId"]].append(json.loads(message["Body"])["batch_id"])
            fifo.outbound.client.delete_message(QueueUrl=fifo.outbound.url, ReceiptHandle=message["ReceiptHandle"])
    assert out == sent
