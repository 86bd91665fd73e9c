"""Prints how long a batch of one waits beside a batch of ten thousand: `python -m loadtest.fairness`.

The service is a process of its own over a real SoftHSM token and a local SQS and S3; large bodies lie in S3. A small
batch is sent, and the next once it came out: first alone, then while a large one is at work, then behind eleven batches
of fifty.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest.stopping import clean_up_at_sigterm
from signer.demo.processes import Program
from signer.demo.stack import Stack, running_stack

_PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.005
_MANY: Final = 11
_FIFTY: Final = 50
_POINTER: Final = "software.amazon.payloadoffloading.PayloadS3Pointer"


def main() -> None:
    """Bring everything up, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=60, help="small batches alone, and as many beside a large one")
    parser.add_argument("--large", type=int, default=10_000, help="transactions of the large one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, running_stack(Path(directory) / "stack") as (stack, service):
        with Outbound(stack) as outbound:
            measure_small(stack, outbound, arguments.small, "warm-up")
            before_mib = resident_mib(service)
            alone = measure_small(stack, outbound, arguments.small, "alone")
            beside, large = measure_beside(stack, outbound, arguments.small, arguments.large)
            behind = measure_behind_many(stack, outbound, arguments.small)
        peak_mib = resident_mib(service, "VmHWM")
        inside = [in_service(stack, name) for name in ("alone", "beside", "behind", "large")]
    print_line("ms", "median", "p95", "max", "max, as a share of the large one")
    # The local SQS looks for new messages ten times a second: from queue to queue that is most of the time.
    for where, times in (("from queue to queue", (alone, beside, behind, large)), ("in the service", inside)):
        print_line(where)
        names = ("small, alone", "small, beside", "small, behind", f"large ({arguments.large:,})")
        for name, each in zip(names, times, strict=True):
            print_times(name, each, statistics.median(times[-1]))
    print_line("resident MiB", f"{before_mib:.0f} before", f"{peak_mib:.0f} at most")


class Outbound:
    """Takes what comes out, and notes when."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.came_at_s: dict[str, float] = {}
        """By batch id; a dictionary keeps the order in which they came."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)

    def __enter__(self) -> Self:
        """Begin to take."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End with what was taken."""
        self._ended.set()
        self._thread.join()

    def wait_for(self, batch_id: str) -> float:
        """Return when it came, in `time.monotonic()` seconds."""
        wait_until(lambda: batch_id in self.came_at_s, batch_id)
        return self.came_at_s[batch_id]

    def _take(self) -> None:
        url = self._stack.queues["outbound"]
        while not self._ended.is_set():
            answer = self._stack.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["batch_id"]
            )
            now_s = time.monotonic()
            for message in answer.get("Messages", []):
                self.came_at_s.setdefault(message["MessageAttributes"]["batch_id"]["StringValue"], now_s)
                self._stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def measure_small(stack: Stack, outbound: Outbound, count: int, name: str) -> list[float]:
    """Send small batches one after the other; gives how many milliseconds each took to come out."""
    return [measure_one(stack, outbound, f"{name}-{number}") for number in range(count)]


def measure_one(stack: Stack, outbound: Outbound, batch_id: str) -> float:
    """Send one small batch and wait for it; gives milliseconds."""
    began_s = time.monotonic()
    send(stack, batch_id, 1)
    return (outbound.wait_for(batch_id) - began_s) * 1000


def measure_beside(stack: Stack, outbound: Outbound, count: int, transactions: int) -> tuple[list[float], list[float]]:
    """Measure small ones that were sent while a large one was at work; gives the times of both, in milliseconds."""
    small: list[float] = []
    large: list[float] = []
    while len(small) < count:
        name = f"large-{len(large)}"
        began_s = time.monotonic()
        send_large(stack, name, transactions)
        wait_until(lambda: at_work(stack) >= transactions, "the large batch to be at work")
        while name not in outbound.came_at_s:
            small.append(measure_one(stack, outbound, f"beside-{len(small)}"))
        large.append((outbound.wait_for(name) - began_s) * 1000)
    return small, large


def measure_behind_many(stack: Stack, outbound: Outbound, count: int) -> list[float]:
    """Measure small ones that were sent right behind eleven batches of fifty; gives milliseconds."""
    small: list[float] = []
    while len(small) < count:
        others = [f"fifty-{len(small)}-{number}" for number in range(_MANY)]
        for name in others:
            send(stack, name, _FIFTY)
        small.append(measure_one(stack, outbound, f"behind-{len(small)}"))
        for name in others:
            outbound.wait_for(name)
    return small


def body_of(batch_id: str, transactions: int) -> str:
    """Give a settlement batch of so many payments."""
    payment = {"amount": "1250.00", "currency": "EUR", "creditor": "DE89370400440532013000", "reference": "invoice 7"}
    return json.dumps(
        {
            "schema": "settlement-batch/1",
            "batch_id": batch_id,
            "key": "settlement",
            "transactions": [
                {"transaction_id": f"{batch_id}/{number}", "message": {**payment, "number": number}}
                for number in range(transactions)
            ],
        }
    )


def send(stack: Stack, batch_id: str, transactions: int) -> None:
    """Send a batch that fits into the message."""
    stack.sqs.send_message(QueueUrl=stack.queues["inbound"], MessageBody=body_of(batch_id, transactions))


def send_large(stack: Stack, batch_id: str, transactions: int) -> None:
    """Send a batch whose body lies in S3, as the Extended Client does."""
    body, key = body_of(batch_id, transactions).encode(), f"inbound/{batch_id}"
    stack.s3.put_object(Bucket=stack.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256")
    stack.sqs.send_message(
        QueueUrl=stack.queues["inbound"],
        MessageBody=json.dumps([_POINTER, {"s3BucketName": stack.bucket, "s3Key": key}]),
        MessageAttributes={"ExtendedPayloadSize": {"DataType": "Number", "StringValue": str(len(body))}},
    )


def at_work(stack: Stack) -> float:
    """Give how many transactions are at work, as the service's metrics have it."""
    text = httpx.get(f"{stack.http_url}/metrics", timeout=_PATIENCE_S).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == "signer_queue_transactions" and sample.labels["state"] == "at_work"
    )


def resident_mib(service: Program, figure: str = "VmRSS") -> float:
    """Give the resident memory of a process now, or at most so far (`VmHWM`)."""
    status = Path(f"/proc/{service.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{figure}:"))
    return int(line.split()[1]) / 1024


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return once it is true; raises `TimeoutError`."""
    give_up_s = time.monotonic() + _PATIENCE_S
    while not true():
        if time.monotonic() > give_up_s:
            msg = f"waited in vain: {what}"
            raise TimeoutError(msg)
        time.sleep(_POLL_S)


def in_service(stack: Stack, name: str) -> list[float]:
    """Give the milliseconds from receive to delete, as the service's log has them, of the batches called so."""
    text = (stack.directory / "serve.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if '"batch.forwarded"' in line]
    return [line["total_s"] * 1000 for line in lines if line["batch_id"].startswith(f"{name}-")]


def print_times(name: str, times: Sequence[float], large_ms: float) -> None:
    """Print one line of the table."""
    figures = (statistics.median(times), sorted(times)[int(len(times) * 0.95)], max(times))
    print_line(f"  {name}", *(f"{each:.1f}" for each in figures), f"{max(times) / large_ms:.1%}")


def print_line(*cells: str) -> None:
    """Print cells under one another."""
    sys.stdout.write("".join(f"{cell:<18}" for cell in cells) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    clean_up_at_sigterm()
    main()
