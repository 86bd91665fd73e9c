"""The HSM goes away under a running service: nothing is lost, no batch is worn out, and all comes back by itself."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from signer.demo.stack import Stack, Token
from signer.errors import UnavailableError
from softhsm.shim.client import LIBRARY, Shim
from tests.service.test_start import running

PATIENCE_S = 60.0
BATCHES = 5


@pytest.fixture
def shim(stack: Stack, service_token: Token) -> Iterator[Shim]:
    """The service's module fails when it is told to."""
    with TemporaryDirectory(prefix="shim") as directory:  # a socket's path must be short
        shim = Shim(Path(directory))
        stack.environment |= shim.environment(service_token.module)
        stack.environment |= {"SIGNER_HSM__MODULE": str(LIBRARY), "SIGNER_SQS__RETRY_AFTER_S": "1"}
        yield shim


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is true."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > until_s:
            raise UnavailableError(what)
        time.sleep(0.05)


def ready(stack: Stack) -> bool:
    """Whether the service says that it can sign."""
    return httpx.get(f"{stack.http_url}/readyz").status_code == 200


def send_batches(stack: Stack) -> None:
    """Put batches into the inbound queue."""
    for number in range(BATCHES):
        batch = {
            "schema": "settlement-batch/1",
            "batch_id": f"OUTAGE-{number}",
            "key": "settlement",
            "transactions": [{"transaction_id": f"OUTAGE-{number}-{i}", "message": {"n": i}} for i in range(5)],
        }
        stack.sqs.send_message(QueueUrl=stack.queues["inbound"], MessageBody=json.dumps(batch))


def forwarded(stack: Stack) -> list[dict[str, Any]]:
    """What the service logged about each batch that went out."""
    lines = (stack.directory / "serve.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "batch.forwarded"]


@pytest.mark.parametrize("fault", ["device_away", "device_error"])
def test_batches_survive_an_outage_of_the_hsm(stack: Stack, shim: Shim, fault: str) -> None:
    """Sent while the HSM is away, every batch goes out once it is back, and has spent at most one receive more."""
    with running(stack):
        away = fault == "device_away"
        outage = shim.device_away(rebuild=True) if away else shim.fail("C_SignInit", "CKR_DEVICE_ERROR")
        send_batches(stack)
        until(lambda: not ready(stack), "not ready")
        assert httpx.get(f"{stack.http_url}/livez").status_code == 200
        answer = httpx.post(
            f"{stack.http_url}/v1/sign",
            json={"key": "settlement", "transaction_id": "OUTAGE-HTTP", "message": {}},
            timeout=60,
        )
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert "Retry-After" in answer.headers
        # Longer than a batch that is handed back stays hidden: were the queue polled meanwhile, it would show below.
        time.sleep(6)
        outage.end()
        until(lambda: ready(stack), "ready again")
        until(lambda: len(forwarded(stack)) == BATCHES, "all forwarded")
        assert max(line["receive_count"] for line in forwarded(stack)) <= 2
        assert {line["batch_id"] for line in forwarded(stack)} == {f"OUTAGE-{number}" for number in range(BATCHES)}
