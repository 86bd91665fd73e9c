"""The power goes in the middle of the work: everything comes out all the same, once over one content each."""

import pytest

from signer.audit.verification import verify_directory
from signer.demo.stack import Stack
from tests.service.batches import Downstream, assert_nothing_is_lost_or_doubled, make_batches, public_key, send
from tests.service.running import audit_records

TORN_LINE = b'{"v":1,"chain":"half a rec'


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
    sent = make_batches(20, 20)
    send(stack, sent)
    downstream = Downstream(stack)
    for enough in (1, 5, 10):
        service = stack.start()
        downstream.take_until(lambda enough=enough: len(downstream.copies) >= enough)  # type: ignore[misc] # bound now
        service.kill()
    tear_the_last_line(stack)
    service = stack.start()
    downstream.take_all(sent)
    key = public_key(stack)
    assert service.terminate() == 0
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)
    # A kill may have torn a line of its own accord, before the one that was torn for certain.
    assert len(verify_directory(stack.audit_directory).repairs) >= 1
    assert "audit.repair" in (stack.directory / "serve.log").read_text()
    assert TORN_LINE in [path.read_bytes() for path in stack.audit_directory.glob("torn-*")]


def test_sigterm_leaves_nothing_half_done(stack: Stack) -> None:
    """Terminated among its work it ends with status 0, and every batch is either out or still in the queue, once."""
    sent = make_batches(20, 20)
    send(stack, sent)
    downstream = Downstream(stack)
    service = stack.start()
    downstream.take_until(lambda: len(downstream.copies) >= 3)
    assert service.terminate() == 0
    successor = stack.start()
    downstream.take_all(sent)
    assert successor.terminate() == 0
    assert all(len(bodies) == 1 for bodies in downstream.copies.values())
    assert not [record for record in audit_records(stack) if record["outcome"] == "replayed"]
