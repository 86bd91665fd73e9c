"""The module takes the process down in the middle of C_Sign: its successor finishes the work."""

import signal

import httpx
import pytest

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.service.batches import (
    Downstream,
    assert_nothing_is_lost_or_doubled,
    inbound_is_empty,
    make_batches,
    public_key,
    send,
)
from tests.service.running import PATIENCE_S, audit_records, running, sign

SIGNALS = [signal.SIGSEGV, signal.SIGKILL]


@pytest.mark.parametrize("by", SIGNALS)
def test_a_crash_in_the_middle_of_a_batch_loses_and_doubles_nothing(
    stack: Stack, shim: Shim, by: signal.Signals
) -> None:
    """Batches are out, half signed and unread when it dies; in the end each is out, with one digest a transaction."""
    sent = make_batches(12, 20)
    downstream = Downstream(stack)
    service = stack.start()
    shim.crash("C_Sign", by, on_call=130)
    send(stack, sent)
    assert service.wait(PATIENCE_S) == -by
    assert not inbound_is_empty(stack)
    successor = stack.start()
    downstream.take_all(sent)
    key = public_key(stack)
    assert successor.terminate() == 0
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


@pytest.mark.parametrize("by", SIGNALS)
def test_who_asked_a_service_that_crashed_asks_its_successor(stack: Stack, shim: Shim, by: signal.Signals) -> None:
    """The caller gets no answer; asked again, the successor signs once, and gives the same signature ever after."""
    service = stack.start()
    shim.crash("C_Sign", by)
    with pytest.raises(httpx.TransportError):
        sign(stack, "T")
    assert service.wait(PATIENCE_S) == -by
    with running(stack):
        first, second = sign(stack, "T"), sign(stack, "T")
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.json()["signature"]["value"] == second.json()["signature"]["value"]
        assert sign(stack, "T", amount="2.00").status_code == 409
    records = [record for record in audit_records(stack) if record.get("transaction_id") == "T"]
    assert [record["outcome"] for record in records] == ["signed", "replayed", "refused"]
