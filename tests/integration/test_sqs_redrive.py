"""A batch that fails again and again is set aside with its history before the queue moves it away without a word."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mypy_boto3_sqs.type_defs import MessageTypeDef

from signer import logs
from signer.errors import AuditUnavailableError, HsmUnavailableError
from signer.settings import SqsSettings
from signer.sqs.redrive import RedriveLimit
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, until
from tests.integration.test_sqs_lease_clock import Clock

AWAY = HsmUnavailableError("connection lost")


def reasons_of(message: MessageTypeDef) -> dict[str, Any]:
    """Read what stands beside a quarantined message."""
    reasons: dict[str, Any] = json.loads(message["MessageAttributes"]["quarantine"]["StringValue"])
    return reasons


def test_near_the_limit_it_is_set_aside_with_its_history(make_entrance: StartEntrance) -> None:
    """After five receives a message is a dead letter: at the fourth failure it is in quarantine, and says why."""
    entrance = make_entrance()
    dead = entrance.queues.inbound.move_after(5)
    entrance.simulation.key_ring.fail_next(AWAY, times=99)
    body = batch("TXN-1", "TXN-2")
    entrance.queues.inbound.put(body)
    entrance.consumer.start()
    (message,) = entrance.queues.quarantine.take()
    assert message["Body"] == body
    reasons = reasons_of(message)
    assert (reasons["code"], reasons["receive_count"], reasons["batch_id"]) == ("receives_exhausted", 4, "STL-1")
    assert [(each["receive"], each["code"]) for each in reasons["history"]] == [
        (number, "hsm_unavailable") for number in (1, 2, 3, 4)
    ]
    assert reasons["first_received"] <= reasons["history"][0]["at"] < reasons["history"][3]["at"]
    assert [entry["code"] for entry in reasons["transactions"]] == ["hsm_unavailable"] * 2
    entrance.wait_for("quarantined")
    entrance.drain()
    assert (entrance.queues.inbound.depth, dead.depth) == (0, 0)
    (entry,) = entrance.simulation.audit.of("quarantine")
    assert (entry.error_code, entry.batch_id) == ("receives_exhausted", "STL-1")


@pytest.mark.parametrize(("limit", "reserve", "last"), [(3, 0, 3), (5, 3, 2), (1, 1, 1), (2, 100, 1)])
def test_the_reserve_says_how_near(make_entrance: StartEntrance, limit: int, reserve: int, last: int) -> None:
    """So many receives are kept back; yet the first is always for signing."""
    entrance = make_entrance(redrive_reserve=reserve)
    entrance.queues.inbound.move_after(limit)
    entrance.simulation.key_ring.fail_next(AWAY, times=99)
    entrance.queues.inbound.put(batch())
    entrance.consumer.start()
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["receive_count"] == last


def test_a_batch_that_succeeds_at_its_last_try_goes_out(make_entrance: StartEntrance) -> None:
    """Being near the limit is nobody's fault: it is signed if it can be."""
    entrance = make_entrance()
    entrance.queues.inbound.move_after(3)
    entrance.queues.inbound.put(batch())
    entrance.queues.inbound.receive_in_vain(1)
    entrance.consumer.start()
    entrance.wait_for("forwarded")
    assert entrance.lines("batch.forwarded")[0]["receive_count"] == 2
    assert entrance.queues.quarantine.depth == 0


def test_what_its_last_try_did_not_survive_is_set_aside_untried(make_entrance: StartEntrance) -> None:
    """A batch whose last try ended without a word may have killed its process: it is not tried again."""
    entrance = make_entrance()
    dead = entrance.queues.inbound.move_after(3)
    entrance.queues.inbound.put(batch())
    entrance.queues.inbound.receive_in_vain(2)
    entrance.consumer.start()
    (message,) = entrance.queues.quarantine.take()
    assert (reasons_of(message)["code"], reasons_of(message)["receive_count"]) == ("receives_exhausted", 3)
    entrance.wait_for("quarantined")
    assert entrance.simulation.ledger.bound == {}
    assert (entrance.queues.inbound.depth, dead.depth) == (0, 0)


def test_one_that_was_signed_and_not_accepted_is_set_aside_too(make_entrance: StartEntrance) -> None:
    """Downstream refuses to the last: the batch is in quarantine rather than a dead letter; its signatures are kept."""
    entrance = make_entrance()
    entrance.queues.inbound.move_after(3)
    with entrance.faults.refused("SendMessageBatch", "AccessDenied", entrance.queues.outbound.url):
        entrance.queues.inbound.put(batch())
        entrance.consumer.start()
        (message,) = entrance.queues.quarantine.take()
    assert [each["code"] for each in reasons_of(message)["history"]] == ["queue_unavailable"] * 2
    assert len(entrance.simulation.key_ring.signed) == 3
    entrance.wait_for("quarantined")
    assert entrance.lines("batch.quarantined")[0]["transactions"] == 3


def test_where_quarantine_fails_too_the_reserve_serves(make_entrance: StartEntrance) -> None:
    """A batch that could not be set aside at its last try is set aside at the receive that was kept for it."""
    entrance = make_entrance()
    dead = entrance.queues.inbound.move_after(3)
    entrance.simulation.key_ring.fail_next(AWAY, times=2)
    # Two failed transactions are recorded, and then the quarantine is not.
    entrance.simulation.audit.fail_next(AuditUnavailableError("the disk is full"), after=2)
    entrance.queues.inbound.put(batch())
    entrance.consumer.start()
    (message,) = entrance.queues.quarantine.take()
    codes = [(each["receive"], each["code"]) for each in reasons_of(message)["history"]]
    assert codes == [(1, "hsm_unavailable"), (2, "hsm_unavailable"), (2, "audit_unavailable")]
    entrance.wait_for("quarantined")
    assert (entrance.queues.inbound.depth, dead.depth) == (0, 0)


def stopping(entrance: Entrance) -> bool:
    """Whether the drain has begun."""
    return bool(entrance.consumer.problems())


def test_a_last_try_is_made_even_while_shutting_down(make_entrance: StartEntrance) -> None:
    """Handed back, the next receive could make it a dead letter; what has receives left is handed back."""
    entrance = make_entrance(visibility_timeout_s=600)
    entrance.queues.inbound.move_after(3)
    entrance.queues.inbound.put(batch("TXN-last", batch_id="last"))
    entrance.queues.inbound.receive_in_vain(1)
    entrance.queues.inbound.put(batch("TXN-fresh", batch_id="fresh"))
    with ThreadPoolExecutor() as pool, entrance.faults.delayed("ReceiveMessage") as gate:
        entrance.consumer.start()
        gate.wait_until_reached()
        drained = pool.submit(entrance.consumer.drain, 30)
        until(lambda: stopping(entrance), "the drain to begin")
        gate.open()
        assert drained.result()
    (line,) = entrance.lines("batch.forwarded")
    assert line["batch_id"] == "last"
    (line,) = entrance.lines("batch.returned")
    assert (line["code"], line["receive_count"]) == ("shutting_down", 1)


def test_an_unknown_limit_is_said_once_and_changes_nothing(make_entrance: StartEntrance) -> None:
    """Without the right to look, batches are received, and come again as often as the queue lets them."""
    entrance = make_entrance()
    entrance.queues.inbound.move_after(5)
    entrance.simulation.key_ring.fail_next(AWAY, times=4)
    with entrance.faults.refused("GetQueueAttributes", "AccessDenied"):
        entrance.queues.inbound.put(batch())
        entrance.consumer.start()
        entrance.wait_for("forwarded")
    assert entrance.lines("batch.forwarded")[0]["receive_count"] == 5
    (line,) = entrance.lines("queue.redrive_unknown")
    assert line["reason"] == "GetQueueAttributes failed: AccessDenied"


def test_the_limit_is_looked_up_now_and_then(make_entrance: StartEntrance) -> None:
    """What the queue says holds for five minutes, and longer while it does not answer; then it is asked again soon."""
    entrance, clock = make_entrance(), Clock()
    inbound = entrance.queues.inbound
    settings = SqsSettings(
        inbound_url=inbound.url,
        outbound_url=entrance.queues.outbound.url,
        quarantine_url=entrance.queues.quarantine.url,
    )
    limit = RedriveLimit(entrance.client, settings, logs.get("test"), clock)

    def seen_at(now_s: float) -> int | None:
        clock.now_s = now_s
        limit.look()
        return limit.last_try

    assert seen_at(0) is None
    inbound.move_after(8)
    assert seen_at(299) is None
    assert seen_at(300) == 7
    inbound.move_after(4)
    with entrance.faults.refused("GetQueueAttributes", "AccessDenied"):
        assert seen_at(600) == 7
    assert seen_at(614) == 7
    assert seen_at(615) == 3
