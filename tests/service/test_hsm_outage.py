"""The HSM goes away under a running service: nothing is lost, no batch is worn out, and all comes back by itself."""

import time

import httpx
import pytest

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.service.batches import make_batches, send
from tests.service.running import logged, ready, running, sign, until

RETRY_AFTER_S = 1


@pytest.mark.parametrize("fault", ["device_away", "device_error"])
def test_batches_survive_an_outage_of_the_hsm(stack: Stack, shim: Shim, fault: str) -> None:
    """Sent while the HSM is away, every batch goes out once it is back, and has spent at most one receive more."""
    stack.environment["SIGNER_SQS__RETRY_AFTER_S"] = str(RETRY_AFTER_S)
    sent = make_batches(5, 5)
    with running(stack):
        away = fault == "device_away"
        outage = shim.device_away(rebuild=True) if away else shim.fail("C_SignInit", "CKR_DEVICE_ERROR")
        send(stack, sent)
        until(lambda: not ready(stack), "not ready")
        assert httpx.get(f"{stack.http_url}/livez").status_code == 200
        answer = sign(stack, "OUTAGE-HTTP")
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "Retry-After" in answer.headers
        # Longer than a batch that is handed back stays hidden: were the queue polled meanwhile, it would show below.
        time.sleep(3 * RETRY_AFTER_S)
        outage.end()
        until(lambda: ready(stack), "ready again")
        until(lambda: len(logged(stack, "batch.forwarded")) == len(sent), "all forwarded")
        assert {line["batch_id"] for line in logged(stack, "batch.forwarded")} == sent.keys()
        assert max(line["receive_count"] for line in logged(stack, "batch.forwarded")) <= 2
