"""The HSM is gone for long, in the middle of the work: what that costs a batch, and how soon it is over."""

import time
from collections.abc import Callable

import pytest

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.service.batches import Batches, Downstream, assert_nothing_is_lost_or_doubled, make_batches, public_key, send
from tests.service.running import logged, running, sign, until

REQUIRED_S = 60
"""So long an outage must be over within `BACK_WITHIN_S` of its end; of a short one the pauses are not over by then."""
BACK_WITHIN_S = 5


@pytest.fixture
def outage_s(request: pytest.FixtureRequest) -> float:
    """How long the HSM is away: `--outage`."""
    duration_s: float = request.config.getoption("outage")
    request.applymarker(pytest.mark.timeout(duration_s + 120))
    return duration_s


def send_for(seconds: float, stack: Stack, batches: Batches) -> None:
    """Send the batches one by one, spread over the time."""
    for batch_id, batch in batches.items():
        send(stack, {batch_id: batch})
        time.sleep(seconds / len(batches))


def test_a_long_outage_costs_a_batch_one_receive_at_most(
    stack: Stack, shim: Shim, outage_s: float, record_property: Callable[[str, object], None]
) -> None:
    """Batches in the middle of it when the HSM goes, and others that come meanwhile, are out soon after its return."""
    del stack.environment["SIGNER_SQS__VISIBILITY_TIMEOUT_S"]  # as operators have it
    sent = make_batches(30, 10)
    first, then = dict(list(sent.items())[:10]), dict(list(sent.items())[10:])
    with running(stack):
        shim.delay("C_Sign", lognormal_ms=(5, 10))
        send(stack, first)
        shim.until(lambda counts: counts["C_Sign"].calls > 10)
        outage = shim.device_away(rebuild=True)
        send_for(outage_s, stack, then)
        back_s = time.monotonic()
        outage.end()
        until(lambda: sign(stack, "HTTP").status_code == 200, "an HTTP request is signed")
        http_s = time.monotonic() - back_s
        until(lambda: len(logged(stack, "batch.forwarded")) == len(sent), "all batches are forwarded")
        batches_s = time.monotonic() - back_s
        downstream = Downstream(stack)
        downstream.take_all(sent)
        key = public_key(stack)
    receives = [line["receive_count"] for line in logged(stack, "batch.forwarded")]
    record_property("away", f"{outage_s:.0f} s")
    record_property("HTTP back after", f"{http_s:.2f} s")
    record_property("all batches out after", f"{batches_s:.2f} s")
    record_property("batches received once, twice", [receives.count(1), receives.count(2)])
    assert max(receives) <= 2
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)
    if outage_s >= REQUIRED_S:
        assert max(http_s, batches_s) < BACK_WITHIN_S


def test_lasting_throttling_costs_a_batch_one_receive_at_most(stack: Stack, shim: Shim) -> None:
    """Batches whose time runs out while the HSM only says not now: the breaker opens, and they wait in the queue."""
    stack.environment |= {"SIGNER_SIGNING_TIMEOUT_S": "2", "SIGNER_SQS__RETRY_AFTER_S": "1"}
    sent = make_batches(12, 5)
    with running(stack):
        throttled = shim.fail("C_SignInit", "CKR_FUNCTION_FAILED")
        send(stack, sent)
        until(lambda: opened(stack, "throttled"), "the breaker is open")
        # Half open, a probe lasts as long as the readiness interval at most; batches are not begun meanwhile.
        probed = shim.counts()["C_SignInit"].calls
        shim.until(lambda counts: counts["C_SignInit"].calls > probed + 20)
        throttled.end()
        downstream = Downstream(stack)
        downstream.take_all(sent)
        key = public_key(stack)
    assert max(line["receive_count"] for line in logged(stack, "batch.forwarded")) <= 2
    assert_nothing_is_lost_or_doubled(stack, sent, downstream, key)


def opened(stack: Stack, trouble: str) -> bool:
    """Whether the breaker opened for that reason."""
    return any(line["reason"].startswith(trouble) for line in logged(stack, "hsm.breaker") if line["state"] == "open")
