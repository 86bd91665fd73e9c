"""The load test against entrances that stall, lie, lose and repeat: real HTTP and queues, real signatures."""

import asyncio
import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from loadtest.messages import Book
from loadtest.open_http import HttpDriver, HttpTarget
from loadtest.open_sqs import SqsDriver, SqsTarget
from loadtest.openloop import run_phase
from loadtest.schedule import Phase
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier
from signer.signatures import public_key_pem
from tests.integration.queues import Queues

KEY = rsa.generate_private_key(65537, 2048)
Answer = dict[str, Any]
Doctor = Callable[[int, Answer], Answer]


def sign(transaction_id: str, message: Any) -> Answer:
    canonical = rfc8785.dumps(message)
    signature = {
        "digest": base64.b64encode(hashlib.sha256(canonical).digest()).decode(),
        "value": base64.b64encode(KEY.sign(canonical, padding.PKCS1v15(), hashes.SHA256())).decode(),
        "audit_id": f"audit-{transaction_id}",
    }
    return {"transaction_id": transaction_id, "signature": signature}


def honest(_: int, answer: Answer) -> Answer:
    return answer


@contextmanager
def http_entrance(doctor: Doctor = honest, stall: Callable[[int], float] = lambda _: 0.0) -> Iterator[str]:
    """Answer one request at a time; the `stall` of a request is how many seconds everybody then waits."""
    one_at_a_time = threading.Lock()
    numbers = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with one_at_a_time:
                number = next(numbers)
                time.sleep(stall(number))
                answer = doctor(number, sign(request["transaction_id"], request["message"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def load_http(url: str, rate: float, seconds: float) -> tuple[Tally, Verdict]:
    async def drive(verifier: Verifier) -> Tally:
        async with HttpDriver(HttpTarget(url, connections=8), Book(200, 50), verifier, "T") as driver:
            return await run_phase(driver, Phase("steady", seconds, rate, judged=True), lambda _: None)

    with closing(Verifier(public_key_pem(KEY.public_key()))) as verifier:
        return asyncio.run(drive(verifier)), verifier.result([], [])


def test_a_stall_counts_for_everything_that_was_due_meanwhile() -> None:
    """One answer takes a second, and all that was due in it waits: a closed loop would see one slow answer in 150."""
    with http_entrance(stall=lambda number: 1.0 if number == 20 else 0.0) as url:
        tally, verdict = load_http(url, 50.0, 3.0)
    phase = tally.figures()
    assert (phase["transactions"], verdict.verified, verdict.problems) == (150, 150, [])
    assert phase["p99_ms"] > 900
    # Due in the first half of the stall, and so in flight for more than half a second.
    assert phase["p90_ms"] > 500


def change_value(answer: Answer) -> Answer:
    value = bytearray(base64.b64decode(answer["signature"]["value"]))
    value[100] ^= 1
    return answer | {"signature": answer["signature"] | {"value": base64.b64encode(value).decode()}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_value, "not the key's"),
        (lambda answer: answer | {"signature": sign("T-0", {"amount": "9"})["signature"]}, "not the key's"),
        (lambda answer: answer | {"transaction_id": "T-0"}, "another transaction"),
        (lambda answer: {"transaction_id": answer["transaction_id"]}, "no signature"),
        (lambda answer: answer | {"signature": {"value": "%"}}, "no signature"),
        (lambda _: {}, "another transaction"),
        (lambda _: ["signed"], "another transaction"),
    ],
    ids=["one-bit", "other-content", "other-id", "absent", "malformed", "empty", "no-object"],
)
def test_one_wrong_answer_in_many_is_found(spoil: Callable[[Answer], Any], said: str) -> None:
    """With status 200 and in good time, as all the others."""
    with http_entrance(lambda number, answer: spoil(answer) if number == 7 else answer) as url:
        tally, verdict = load_http(url, 40.0, 0.5)
    assert tally.figures()["transactions"] == 20
    assert verdict.verified == 19
    assert any(said in problem for problem in verdict.problems)


Batch = dict[str, Any]


def answer_batches(queues: Queues, count: int, doctor: Callable[[Batch], list[Batch]]) -> None:
    """Do what the service does, `count` times: take a batch, sign it, put out what the doctor makes of it."""
    while count:
        answer = queues.inbound.client.receive_message(QueueUrl=queues.inbound.url, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            batch = json.loads(message["Body"])
            batch["transactions"] = [
                item | sign(item["transaction_id"], item["message"]) for item in batch["transactions"]
            ]
            for made in doctor(batch):
                queues.outbound.put(json.dumps(made))
            count -= 1


def load_sqs(queues: Queues, doctor: Callable[[Batch], list[Batch]]) -> tuple[Tally, Verdict]:
    target = SqsTarget(queues.inbound.client, queues.inbound.url, queues.outbound.url, size=5, timeout_s=6.0)

    async def drive(verifier: Verifier) -> Tally:
        async with SqsDriver(target, Book(200, 50), verifier, "T") as driver:
            return await run_phase(driver, Phase("steady", 0.5, 20.0, judged=True), lambda _: None)

    service = threading.Thread(target=answer_batches, args=(queues, 2, doctor))
    service.start()
    with closing(Verifier(public_key_pem(KEY.public_key()))) as verifier:
        tally = asyncio.run(drive(verifier))
        service.join()
        return tally, verifier.result([], [])


def without_last(batch: Batch) -> list[Batch]:
    return [batch | {"transactions": batch["transactions"][:-1]}]


def with_first_changed(batch: Batch) -> list[Batch]:
    first, *rest = batch["transactions"]
    return [batch | {"transactions": [change_value(first), *rest]}]


def test_batches_that_come_out_right_are_verified_to_the_last_transaction(queues: Queues) -> None:
    """Two of five."""
    tally, verdict = load_sqs(queues, lambda batch: [batch])
    assert (tally.figures()["transactions"], verdict.verified, verdict.problems) == (10, 10, [])


@pytest.mark.parametrize(
    ("doctor", "said"),
    [
        (with_first_changed, "not the key's"),
        (without_last, "not as it was sent"),
        (lambda batch: [batch | {"transactions": batch["transactions"][::-1]}], "not as it was sent"),
        (lambda batch: [batch, batch], "twice"),
        (lambda batch: [batch, batch | {"batch_id": "B-unknown", "transactions": []}], "not as it was sent"),
        (lambda batch: [batch, {"batch": 1}], "no batch"),
    ],
    ids=["one-bit", "one-missing", "other-order", "duplicate", "unknown", "no-batch"],
)
def test_a_batch_that_comes_out_otherwise_is_found(
    queues: Queues, doctor: Callable[[Batch], list[Batch]], said: str
) -> None:
    """Whatever else came with it."""
    _, verdict = load_sqs(queues, doctor)
    assert any(said in problem for problem in verdict.problems), verdict.problems


def test_a_batch_that_does_not_come_out_is_an_error(queues: Queues) -> None:
    """Of each of its transactions."""
    tally, _ = load_sqs(queues, lambda _: [])
    assert tally.figures()["errors"] == 10
