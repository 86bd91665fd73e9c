"""The load test as people run it, and its queue side before a signer that repeats itself."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from loadtest.messages import Book
from loadtest.open_sqs import SqsDriver
from loadtest.openloop import run_phase
from loadtest.schedule import Phase
from loadtest.verifier import Verifier
from signer.demo.stack import Emulator
from tests.integration.test_loadtest_open import PEM, signature


def loadtest(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; it puts the shim before SoftHSM itself, whatever this run of the tests is over."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    command = [sys.executable, "-m", "loadtest", *arguments]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.parametrize(("target", "signed"), [("http", 60 + 20), ("sqs", 75 + 25)])
def test_a_short_run_over_the_slow_module_is_proven(target: str, signed: int, tmp_path: Path) -> None:
    """Every signature is verified and in ledger and audit log; the report says so, for people and for machines."""
    rates = ["--rate", "20" if target == "http" else "25", "--duration", "3", "--warm-up", "1"]
    patient = ["--objective", "max=60s,errors=0", "--most-lag-ms", "60000", "--reports", str(tmp_path)]
    done = loadtest("--target", target, *rates, *patient)
    report = json.loads((tmp_path / f"loadtest-{target}.json").read_text(encoding="utf-8"))
    # A machine that is short of CPU answers late; what it answers is right all the same.
    late = [each for each in report["failures"] if "came back of" in each]
    assert report["failures"] == late, done.stdout
    assert done.returncode == bool(late)
    assert (report["verified"], report["compared"]) == (signed, True)
    page = (tmp_path / f"loadtest-{target}.html").read_text(encoding="utf-8")
    assert f"{signed} signatures verified with the public key, compared one by one" in page


def test_a_missed_objective_is_the_status(tmp_path: Path) -> None:
    """No service answers in a microsecond."""
    short = ["--target", "http", "--rate", "10", "--duration", "1"]
    done = loadtest(*short, "--objective", "p50=0.001ms", "--reports", str(tmp_path))
    assert done.returncode == 1
    assert "failed: steady: p50_ms was" in done.stdout


@pytest.mark.parametrize("more", [["--url", "https://signer.example"], ["--inbound-url", "https://sqs.example/1/in"]])
def test_a_service_that_runs_already_needs_a_key_to_verify_with(more: list[str]) -> None:
    """What it says of itself would prove nothing."""
    done = loadtest("--target", "http", *more)
    assert done.returncode == 2
    assert "needs --public-key" in done.stdout


@pytest.mark.parametrize(
    ("wrong", "problem"), [("", None), ("twice", "came out twice"), ("one item less", "did not come back")]
)
def test_a_batch_that_is_not_whole_or_comes_twice_is_found(emulator: Emulator, wrong: str, problem: str | None) -> None:
    """The driver matches what comes out of the queue item by item."""
    queues = emulator.create_queues(f"doctored-{wrong.replace(' ', '-') or 'right'}")
    over = threading.Event()
    signer = threading.Thread(target=sign_wrongly, args=(emulator, queues, wrong, over))
    signer.start()
    verifier = Verifier(PEM)
    driver = SqsDriver(emulator.sqs, queues, Book(250, 10), verifier, "T", 2)
    try:
        asyncio.run(load(driver, emulator, queues))
    finally:
        over.set()
        signer.join()
    _, problems = verifier.result([], [])
    assert any(problem in each for each in problems) if problem else not problems
    assert bool(driver.stray) == bool(problem)


async def load(driver: SqsDriver, emulator: Emulator, queues: dict[str, str]) -> None:
    async with driver:
        await run_phase(driver, Phase("steady", 1.0, 10.0), lambda _: None)
        await asyncio.to_thread(wait_until_empty, emulator, queues["outbound"])


def wait_until_empty(emulator: Emulator, url: str) -> None:
    wanted: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while any(
        int(each)
        for each in emulator.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"].values()
    ):
        time.sleep(0.1)


def sign_wrongly(emulator: Emulator, queues: dict[str, str], wrong: str, over: threading.Event) -> None:
    while not over.is_set():
        received = emulator.sqs.receive_message(QueueUrl=queues["inbound"], WaitTimeSeconds=1).get("Messages", [])
        for message in received:
            batch = json.loads(message["Body"])
            for item in batch["transactions"]:
                item["signature"] = signature(item["message"])
            if wrong == "one item less":
                batch["transactions"].pop()
            for _ in range(2 if wrong == "twice" else 1):
                emulator.sqs.send_message(QueueUrl=queues["outbound"], MessageBody=json.dumps(batch))
            emulator.sqs.delete_message(QueueUrl=queues["inbound"], ReceiptHandle=message["ReceiptHandle"])
