"""The load test against a service that loses, repeats and changes batches, or is late: a real queue."""

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError
from mypy_boto3_sqs import SQSClient

from loadtest.messages import Book
from loadtest.objectives import fell_behind
from loadtest.open_sqs import SqsDriver, SqsTarget
from loadtest.openloop import run_phase
from loadtest.schedule import Phase
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier
from tests.integration.loadtests import change_value, new_verifier, sign
from tests.integration.queues import Queues

ONE_BATCH = Phase("steady", 0.1, 50.0, judged=True)
Batch = dict[str, Any]
BatchDoctor = Callable[[Batch], Sequence[Batch | str]]


def answer_batches(queues: Queues, count: int, doctor: BatchDoctor) -> None:
    """Do what the service does, `count` times: take a batch, sign it, put out what the doctor makes of it."""
    while count:
        answer = queues.inbound.client.receive_message(QueueUrl=queues.inbound.url, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            batch = json.loads(message["Body"])
            batch["transactions"] = [
                item | sign(item["transaction_id"], item["message"]) for item in batch["transactions"]
            ]
            for made in doctor(batch):
                queues.outbound.put(made if isinstance(made, str) else json.dumps(made))
            count -= 1


@contextmanager
def hooked(client: SQSClient, call: str, hook: Callable[..., None]) -> Iterator[None]:
    """Have something happen in the client, before each of these calls goes out."""
    client.meta.events.register(f"before-call.sqs.{call}", hook)
    yield
    client.meta.events.unregister(f"before-call.sqs.{call}", hook)


def load_sqs(queues: Queues, doctor: BatchDoctor, timeout_s: float = 60.0, batches: int = 2) -> tuple[Tally, Verdict]:
    target = SqsTarget(queues.inbound.client, queues.inbound.url, queues.outbound.url, size=5, timeout_s=timeout_s)

    async def drive(verifier: Verifier) -> Tally:
        async with SqsDriver(target, Book(200, 50), verifier, "T") as driver:
            return await run_phase(driver, Phase("steady", batches * 0.1, 50.0, judged=True), lambda _: None)

    service = threading.Thread(target=answer_batches, args=(queues, batches, doctor))
    service.start()
    with new_verifier() as verifier:
        tally = asyncio.run(drive(verifier))
        service.join()
        return tally, verifier.result([], [])


def without_last(batch: Batch) -> list[Batch]:
    return [batch | {"transactions": batch["transactions"][:-1]}]


def with_first_changed(batch: Batch) -> list[Batch]:
    first, *rest = batch["transactions"]
    return [batch | {"transactions": [change_value(first), *rest]}]


DOCTORED: Sequence[tuple[BatchDoctor, str]] = [
    (with_first_changed, "not the key's"),
    (without_last, "not as it was sent"),
    (lambda batch: [batch | {"transactions": batch["transactions"][::-1]}], "not as it was sent"),
    (lambda batch: [batch, batch], "twice"),
    (lambda batch: [batch, batch | {"batch_id": "B-unknown", "transactions": []}], "not as it was sent"),
    (lambda batch: [batch, {"batch": 1}], "no batch"),
    (lambda batch: ["[" * 3, batch], "no batch"),
    (lambda batch: ["null", batch], "no batch"),
]


def test_each_batch_that_comes_out_otherwise_is_found(queues: Queues) -> None:
    """Whatever else comes with it; a whole copy is five transactions that came twice, and one less is missing."""
    numbers = iter(range(1000))

    def doctor(batch: Batch) -> Sequence[Batch | str]:
        number = next(numbers)
        return DOCTORED[number][0](batch) if number < len(DOCTORED) else [batch]

    tally, verdict = load_sqs(queues, doctor, batches=10)
    assert tally.figures()["transactions"] == 50
    assert verdict.verified == 50 - 2
    expected = Counter(said for _, said in DOCTORED) + Counter({"twice": 4, "did not come back": 1})
    for said, times in expected.items():
        assert sum(said in problem for problem in verdict.problems) == times, verdict.problems


def test_a_batch_that_does_not_come_out_is_an_error(queues: Queues) -> None:
    """Of each of its transactions, which may be signed all the same."""
    tally, verdict = load_sqs(queues, lambda _: [], timeout_s=1.0)
    assert tally.figures()["errors"] == 10
    assert (verdict.verified, verdict.problems) == (0, [])


async def drive(driver: SqsDriver, phase: Phase, then: Callable[[], object]) -> Tally:
    """Run a phase, and do something before the driver leaves."""
    async with driver:
        tally = await run_phase(driver, phase, lambda _: None)
        await asyncio.to_thread(then)
        return tally


def test_a_batch_that_comes_out_too_late_is_an_error_and_no_copy(queues: Queues) -> None:
    """It was refused by the clock alone: its signatures are verified all the same, and nothing is said to be twice."""
    with new_verifier() as verifier:
        target = SqsTarget(queues.inbound.client, queues.inbound.url, queues.outbound.url, size=5, timeout_s=0.2)
        driver = SqsDriver(target, Book(200, 50), verifier, "T")
        tally = asyncio.run(drive(driver, ONE_BATCH, lambda: answer_batches(queues, 1, lambda batch: [batch])))
        verdict = verifier.result([], [])
        assert tally.figures()["errors"] == 5
        assert (verdict.verified, verdict.problems) == (5, [])


def test_a_message_that_the_queue_delivers_again_is_no_copy(queues: Queues) -> None:
    """At least once is what a queue promises: a delete that fails brings the same message again."""
    with new_verifier() as verifier:
        client, deletes = queues.inbound.client, itertools.count(1)
        client.set_queue_attributes(QueueUrl=queues.outbound.url, Attributes={"VisibilityTimeout": "1"})
        deleted = threading.Event()

        def fail_once(**_: object) -> None:
            if next(deletes) == 1:
                raise ClientError({"Error": {"Code": "InternalError", "Message": ""}}, "DeleteMessageBatch")
            deleted.set()

        target = SqsTarget(client, queues.inbound.url, queues.outbound.url, size=5)
        service = threading.Thread(target=answer_batches, args=(queues, 1, lambda batch: [batch]))
        service.start()
        with hooked(client, "DeleteMessageBatch", fail_once):
            tally = asyncio.run(drive(SqsDriver(target, Book(200, 50), verifier, "T"), ONE_BATCH, deleted.wait))
        service.join()
        verdict = verifier.result([], [])
        assert tally.figures()["transactions"] == 5
        assert (verdict.verified, verdict.problems) == (5, [])


def test_a_batch_that_waits_for_a_thread_to_send_it_is_late(queues: Queues) -> None:
    """A call of 300 ms keeps one of eight threads: of 20 batches in 0.2 s the last waits for two calls, through us."""
    with new_verifier() as verifier:
        client = queues.inbound.client
        target = SqsTarget(client, queues.inbound.url, queues.outbound.url, size=5, timeout_s=0.1)
        driver = SqsDriver(target, Book(200, 50), verifier, "T")
        with hooked(client, "SendMessage", lambda **_: time.sleep(0.3)):
            tally = asyncio.run(drive(driver, Phase("steady", 0.2, 500.0, judged=True), lambda: None))
        assert tally.due == 20
        assert tally.figures()["generator_lag_max_ms"] > 300
        assert any("fell behind" in why for why in fell_behind([tally.figures()], 50.0))
