"""The process is told to end while calls hang in the HSM: it does, and a successor does the work."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from signer.demo.processes import Program
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
from tests.service.running import running, sign

DRAIN_TIMEOUT_S = 5
CLOSING_S = 5
"""What is left to do after the drain time: nothing of it is worth waiting for."""


def start(stack: Stack, call_timeout_s: int) -> Program:
    """Start a service that drains for a few seconds only."""
    stack.environment |= {
        "SIGNER_HSM__CALL_TIMEOUT_S": str(call_timeout_s),
        "SIGNER_DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        "SIGNER_SQS__RETRY_AFTER_S": "1",
    }
    return stack.start()


def end(service: Program) -> int:
    """Send SIGTERM and give the exit status; raises `UnavailableError` if it lives on after its drain time."""
    os.kill(service.pid, signal.SIGTERM)
    return service.wait(DRAIN_TIMEOUT_S + CLOSING_S)


@pytest.mark.parametrize(
    ("calls", "call_timeout_s", "status"),
    [(1, 1, 0), (-1, 1, 86), (-1, 60, 75)],
    ids=["one is given up", "too many are given up", "none is given up"],
)
def test_sigterm_ends_a_service_whose_calls_hang(
    stack: Stack, shim: Shim, calls: int, call_timeout_s: int, status: int
) -> None:
    """Its status tells why; the batches whose calls hung are in the queue then, and the next service signs them."""
    sent = make_batches(4, 5)
    downstream = Downstream(stack)
    service = start(stack, call_timeout_s)
    with shim.hang("C_Sign", times=calls) as hung:
        send(stack, sent)
        hung.wait_for()
        assert end(service) == status
    assert not inbound_is_empty(stack)
    with running(stack):
        downstream.take_all(sent)
        key = public_key(stack)
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


def test_who_asked_over_http_is_told_to_ask_again(stack: Stack, shim: Shim) -> None:
    """The request whose call hangs at the end of the drain time is answered 503, and the next service signs it."""
    service = start(stack, call_timeout_s=60)
    with shim.hang("C_Sign") as hung, ThreadPoolExecutor() as threads:
        caller = threads.submit(sign, stack, "T")
        hung.wait_for()
        assert end(service) == 75
        assert (caller.result().status_code, caller.result().json()["retryable"]) == (503, True)
    with running(stack):
        assert sign(stack, "T").status_code == 200
