"""Small batches that are at hand at once go through the core together, and large ones by themselves."""

from collections.abc import Sequence

import pytest

from signer.errors import SignerError
from signer.ports import Claim, Claimed, Signature
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import batch, until

LARGE = [f"LARGE-{number}" for number in range(51)]


def wait_for_waiting(entrance: Entrance, count: int) -> None:
    """Return once so many batches wait for others to come out of the core."""
    small = entrance.consumer._worker._desk._small  # noqa: SLF001 - nobody else can tell
    until(lambda: small.waiting == count, f"{count} batches to wait")


@pytest.fixture(autouse=True)
def _they_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it takes, however busy this machine is."""
    monkeypatch.setattr("signer.sqs.desk._LONG_S", 600)


def test_small_batches_that_wait_for_the_core_go_in_together(start_entrance: StartEntrance) -> None:
    """One call is under way; what came meanwhile is one more, with one claim and one record for all."""
    entrance = start_entrance(max_batches_in_flight=8)
    with entrance.simulation.key_ring.held() as held:
        for number in range(8):
            entrance.queues.inbound.put(batch(f"TXN-{number}", batch_id=f"STL-{number}"))
            held.wait_for(1)
        wait_for_waiting(entrance, 7)
    entrance.wait_for("forwarded", 8)
    entrance.drain()
    assert entrance.simulation.ledger.sizes["claim"] == [1, 7]
    assert {
        message["MessageAttributes"]["batch_id"]["StringValue"] for message in entrance.queues.outbound.take(8)
    } == {f"STL-{number}" for number in range(8)}


def test_large_batches_wait_for_nobody(start_entrance: StartEntrance) -> None:
    """Nor does a small one for them, however many are in the core."""
    entrance = start_entrance(max_transactions=100)
    with entrance.simulation.key_ring.held() as held:
        for number in range(4):
            entrance.queues.inbound.put(batch(*[f"{number}-{name}" for name in LARGE], batch_id=f"STL-{number}"))
        held.wait_for(4)
        entrance.queues.inbound.put(batch("TXN-1"))
        held.wait_for(5)
    entrance.wait_for("forwarded", 5)


def test_one_that_was_lost_while_it_waited_is_not_signed(start_entrance: StartEntrance) -> None:
    """Whoever has it now signs it; here nothing of it is claimed, and those beside it go on."""
    entrance = start_entrance(visibility_timeout_s=5, max_batches_in_flight=4)
    with entrance.simulation.key_ring.held() as held:
        entrance.queues.inbound.put(batch("TXN-1"))
        held.wait_for(1)
        with entrance.faults.leases_refused("ReceiptHandleIsInvalid"):
            entrance.queues.inbound.put(batch("LOST"))
            until(lambda: len(entrance.lines("lease.lost")) == 2, "the leases to be lost")
            assert [name for _, name in entrance.simulation.ledger.bound] == ["TXN-1"]
            held.let_go()
            entrance.wait_for("lost_lease", 2)
            assert "LOST" not in {name for _, name in entrance.simulation.ledger.bound}
    entrance.wait_for("forwarded", 2)
    entrance.drain()


def test_a_batch_that_meets_a_defect_fails_alone(
    start_entrance: StartEntrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those signed together with it are signed all the same: it cannot hold them back at each delivery."""
    entrance = start_entrance(max_batches_in_flight=6)
    ledger = entrance.simulation.ledger
    claim = ledger.claim

    def claim_but_one(claims: Sequence[Claim]) -> list[Claimed | Signature | SignerError]:
        if any(each.transaction_id == "BAD" for each in claims):
            msg = "nobody thought of this"
            raise RuntimeError(msg)
        return claim(claims)

    monkeypatch.setattr(ledger, "claim", claim_but_one)
    with entrance.simulation.key_ring.held() as held:
        entrance.queues.inbound.put(batch("TXN-1"))
        held.wait_for(1)
        _, bad, _ = [entrance.queues.inbound.put(batch(name)) for name in ("TXN-2", "BAD", "TXN-3")]
        entrance.wait_for("received", 4)
        wait_for_waiting(entrance, 3)
    entrance.wait_for("forwarded", 3)
    assert {name for _, name in ledger.bound} == {"TXN-1", "TXN-2", "TXN-3"}
    assert {(line["message_id"], line["code"]) for line in entrance.lines("batch.returned")} == {
        (bad, "internal_error")
    }
