"""A service that runs: started and ended, asked from outside, waited for."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from signer.demo.processes import Program
from signer.demo.stack import Stack

PATIENCE_S = 60.0


@contextmanager
def running(stack: Stack) -> Iterator[Program]:
    """Run the service for the block."""
    service = stack.start()
    try:
        yield service
    finally:
        service.terminate()


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is true."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until_s, f"never: {what}"
        time.sleep(0.05)


def ready(stack: Stack) -> bool:
    """Whether the service says that it can sign."""
    return httpx.get(f"{stack.http_url}/readyz").status_code == 200


def sign(stack: Stack, transaction_id: str, amount: str = "1.00") -> httpx.Response:
    """Ask for one signature."""
    body = {"key": "settlement", "transaction_id": transaction_id, "message": {"amount": amount}}
    return httpx.post(f"{stack.http_url}/v1/sign", json=body, timeout=PATIENCE_S)


def audit_records(stack: Stack) -> list[dict[str, Any]]:
    """Every record of the audit log; not the one that is being written at this moment."""
    files = sorted(stack.audit_directory.glob("*.jsonl"))
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def logged(stack: Stack, event: str) -> list[dict[str, Any]]:
    """Every line of the service's log that tells of `event`."""
    text = (stack.directory / "serve.log").read_text(encoding="utf-8")
    # What is being written ends without a newline; what a process says at its death is no JSON.
    lines = [
        json.loads(line) for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")
    ]
    return [line for line in lines if line["event"] == event]
