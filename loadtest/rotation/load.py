"""The load: single transactions over HTTP to both processes, and batches through the queue, at a steady rate."""

import http.client
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from loadtest.rotation.stage import Fleet
from signer.demo.stack import Stack
from signer.drill.loops import Loop, Steady
from tests import canaries

BATCH: Final = 40
CANARY: Final = "canary-rotation-0815"
"""In everything that is signed, and to be found nowhere."""
_CONNECTIONS: Final = 4
"""To each process."""
_LOOK_S: Final = 0.25


@dataclass
class Seen:
    """What the clients got to see."""

    signed: list[dict[str, Any]] = field(default_factory=list)
    """Signed transactions of HTTP."""
    moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By audit id: the Unix times at which its client asked, and had the answer; not the service's own."""
    batches: dict[str, list[str]] = field(default_factory=dict)
    """Every copy of each batch that came out."""
    sent: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)
    """Every answer of HTTP, with its headers."""
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    """By process and fingerprint: the Unix time at which the key set first had it."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """One kept connection to one process."""

    def __init__(self, stack: Stack, name: str, rate_per_s: float, seen: Seen) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(stack.http_url).netloc, timeout=30)
        self._name = name
        self._seen = seen
        self._arrivals = Steady(name, rate_per_s, self._sign)

    def stop(self) -> None:
        """Send no more."""
        self._arrivals.stop()
        self._connection.close()

    def _sign(self, number: int) -> None:
        wanted = {"transaction_id": f"{self._name}-{number}", "message": {"amount": f"{number}.00", "memo": CANARY}}
        body = json.dumps({"key": "settlement", **wanted})
        asked_s = time.time()
        self._connection.request("POST", "/v1/sign", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content, answered_s = answer.read(), time.time()
        document = json.loads(content)
        with self._seen.lock:
            self._seen.heard.append(answer.headers.as_bytes() + content)
            if answer.status == http.client.OK:
                self._seen.signed.append({**wanted, "signature": document["signature"]})
                self._seen.moments[document["signature"]["audit_id"]] = asked_s, answered_s
            else:
                self._seen.errors.append(f"HTTP {answer.status} {document.get('code')}")


class Batches:
    """Sends batches, and takes what comes out downstream."""

    def __init__(self, stack: Stack, rate_per_s: float, seen: Seen) -> None:
        self._stack = stack
        self._seen = seen
        self._downstream = Loop("downstream", self._take)
        self._arrivals = Steady("batches", rate_per_s / BATCH, self._send)

    def stop(self, patience_s: float = 60) -> None:
        """Send no more, and wait for what was sent."""
        self._arrivals.stop()
        until_s = time.monotonic() + patience_s
        while self._seen.sent - self._seen.batches.keys() and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        self._downstream.stop()

    def _send(self, number: int) -> None:
        transactions = [
            {"transaction_id": f"B-{number}-{i}", "message": {"amount": f"{number}.{i:02}", "memo": CANARY}}
            for i in range(BATCH)
        ]
        batch = {"schema": "settlement-batch/1", "batch_id": f"B-{number}", "key": "settlement"}
        body = json.dumps({**batch, "transactions": transactions})
        self._stack.sqs.send_message(QueueUrl=self._stack.queues["inbound"], MessageBody=body)
        self._seen.sent.add(f"B-{number}")

    def _take(self) -> None:
        url = self._stack.queues["outbound"]
        answer = self._stack.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            batch_id = json.loads(message["Body"])["batch_id"]
            self._seen.batches.setdefault(batch_id, []).append(message["Body"])
            self._stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def watch_key_sets(fleet: Fleet, seen: Seen) -> Loop:
    """Look at what each process publishes, over and over."""

    def look() -> None:
        for stack in fleet.stacks:
            with suppress(OSError, http.client.HTTPException):
                found = _key_set(stack)
                first = seen.published.setdefault(stack.directory.name, {})
                for key in found.get("keys", []):
                    first.setdefault(key["kid"], time.time())
        time.sleep(_LOOK_S)

    return Loop("key sets", look)


def _key_set(stack: Stack) -> Mapping[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(stack.http_url).netloc, timeout=10)
    try:
        connection.request("GET", "/.well-known/jwks.json")
        answer = connection.getresponse()
        content = answer.read()
        return dict(json.loads(content)) if answer.status == http.client.OK else {}
    finally:
        connection.close()


def leaks_of(fleet: Fleet) -> list[str]:
    """Name what the processes let out while they run; what they answered, and all they wrote, is for the proof."""
    secrets = {fleet.pin.decode(), CANARY}
    found = (canaries.leaks(stack.directory, stack.http_url, (), secrets) for stack in fleet.stacks)
    return [fault for faults in found for fault in faults]


def run(fleet: Fleet, rate_per_s: float, http_share: float, until_s: float) -> Seen:
    """Send `rate_per_s` transactions a second until the Unix time `until_s`, and take what comes of them."""
    seen = Seen()
    watching = watch_key_sets(fleet, seen)
    each = rate_per_s * http_share / (len(fleet.stacks) * _CONNECTIONS)
    batches = Batches(fleet.stacks[0], rate_per_s * (1 - http_share), seen)
    clients = [
        Client(stack, f"{stack.directory.name}-{number}", each, seen)
        for stack in fleet.stacks
        for number in range(_CONNECTIONS)
    ]
    time.sleep(max(0.0, until_s - time.time()))
    seen.errors += leaks_of(fleet)
    for client in clients:
        client.stop()
    batches.stop()
    watching.stop()
    return seen
