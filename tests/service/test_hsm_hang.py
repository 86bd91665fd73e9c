"""The process is told to end while calls hang in the HSM: it does, and a successor does the work."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from signer.demo.processes import Program
from signer.demo.stack import Stack, Token
from softhsm.shim.client import Shim
from tests.service.batches import (
    Downstream,
    assert_nothing_is_lost_or_doubled,
    inbound_is_empty,
    make_batches,
    public_key,
    send,
)
from tests.service.running import logged, ready, running, sign, until

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
    ("calls", "call_timeout_s", "statuses"),
    # Where all hang, a probe that does so too before the drain time is over makes it one too many.
    [(1, 1, {0}), (-1, 1, {0, 86}), (-1, 60, {75})],
    ids=["one is given up", "all are given up", "none is given up"],
)
def test_sigterm_ends_a_service_whose_calls_hang(
    stack: Stack, shim: Shim, calls: int, call_timeout_s: int, statuses: set[int]
) -> None:
    """Its status tells why; the batches whose calls hung are in the queue then, and the next service signs them."""
    sent = make_batches(4, 5)
    downstream = Downstream(stack)
    service = start(stack, call_timeout_s)
    with shim.hang("C_Sign", times=calls) as hung:
        send(stack, sent)
        hung.wait_for()
        assert end(service) in statuses
    assert not inbound_is_empty(stack)
    with running(stack):
        downstream.take_all(sent)
        key = public_key(stack)
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


def test_small_batches_beside_calls_that_hang_are_signed(stack: Stack, shim: Shim) -> None:
    """Those that hang hold up themselves alone: the others are out before any call is given up."""
    sent = make_batches(12, 1)
    hanging, others = dict(list(sent.items())[:2]), dict(list(sent.items())[2:])
    downstream = Downstream(stack)
    stack.environment |= {"SIGNER_HSM__CALL_TIMEOUT_S": "60", "SIGNER_HSM__SESSIONS": "8"}
    with running(stack):
        with shim.hang("C_Sign", times=2) as hung:
            for number, batch_id in enumerate(hanging, start=1):
                send(stack, {batch_id: hanging[batch_id]})
                hung.wait_for(number)
            send(stack, others)
            downstream.take_until(lambda: others.keys() <= downstream.copies.keys())
            assert not hanging.keys() & downstream.copies.keys()
            assert not logged(stack, "batch.returned"), "the others waited for those that hang"
        downstream.take_all(sent)
        key = public_key(stack)
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


def test_a_service_that_was_stopped_meanwhile_gives_nothing_up(stack: Stack, shim: Shim) -> None:
    """As when its container is frozen, or its machine moved: calls did not hang because all stood still."""
    service = start(stack, call_timeout_s=5)
    with shim.hang("C_Sign", times=1) as hung, ThreadPoolExecutor() as threads:
        answer = threads.submit(sign, stack, "P-1")
        hung.wait_for()
        os.kill(service.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(service.pid, signal.SIGCONT)
        hung.end()
        assert answer.result().status_code == 200
    assert "hsm.call_hangs" not in service.log.read_text(encoding="utf-8")
    assert service.terminate() == 0


def test_a_service_whose_calls_all_hang_ends_itself(stack: Stack, shim: Shim, service_token: Token) -> None:
    """Once even the probes hang: with its status, and one dump of all threads; the next service does the work."""
    sent = make_batches(4, 5)
    service = start(stack, call_timeout_s=1)
    with shim.hang("C_Sign"):
        send(stack, sent)
        assert service.wait(60) == 86
    said = service.log.read_text(encoding="utf-8")
    assert said.count("Current thread 0x") == 1
    assert "signature_maker.py" in said
    assert service_token.pin_file.read_text(encoding="utf-8").strip().rpartition(":")[2] not in said
    assert "amount" not in said
    assert said.count('"event": "hsm.calls_hang"') == 1
    downstream = Downstream(stack)
    with running(stack):
        downstream.take_all(sent)
        key = public_key(stack)
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


@pytest.mark.parametrize("function", ["C_Login", "C_Initialize"])
def test_a_service_that_cannot_mend_its_connection_ends_itself(stack: Stack, shim: Shim, function: str) -> None:
    """A login that does not come back is in everybody's way: callers are answered, readiness is lost, and it ends."""
    service = start(stack, call_timeout_s=1)
    with shim.hang(function) as hung:
        if function == "C_Login":
            shim.drop_login()
        else:
            shim.device_away(for_s=0.1, rebuild=True)
        until(lambda: sign(stack, "T").status_code == 503, "a refusal")
        hung.wait_for()
        until(lambda: not ready(stack), "not ready")
        assert service.wait(60) == 86
    with running(stack):
        assert sign(stack, "T").status_code == 200


def test_a_check_of_the_keys_that_hangs_costs_no_readiness(stack: Stack, shim: Shim) -> None:
    """The attributes are read on a timer; the service stays ready, signs, and looks at the keys the next time."""
    stack.environment["SIGNER_READINESS_INTERVAL_S"] = "1"
    service = start(stack, call_timeout_s=1)
    with shim.hang("C_GetAttributeValue", times=1) as hung:
        hung.wait_for()
        before = shim.counts()["C_FindObjectsInit"].calls
        # Three intervals without a probe would cost it.
        shim.until(lambda counts: counts["C_FindObjectsInit"].calls >= before + 3)
        assert ready(stack)
        assert sign(stack, "T").status_code == 200
    assert service.terminate() == 0


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
