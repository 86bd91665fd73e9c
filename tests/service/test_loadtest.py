"""The load test from end to end, as people run it: a stack of its own, both entrances, and the report."""

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

# Over a shim of its own, whatever the run is over.
pytestmark = pytest.mark.once


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Give the words and the environment: it puts the shim before SoftHSM itself, whatever the tests are over."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    return [sys.executable, "-m", "loadtest", *arguments], clean


def run(tmp_path: Path, *arguments: str, most_lag_ms: float = 60_000) -> tuple[int, str, dict[str, Any], str]:
    """Run it for seconds, however slow this machine is; gives exit status, what it said, and both reports."""
    short = ["--rate", "20", "--duration", "2", "--warm-up", "1", "--most-lag-ms", str(most_lag_ms)]
    words, clean = command(*short, "--reports", str(tmp_path), *arguments)
    done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False, timeout=110)
    (machines,) = tmp_path.glob("*.json")
    page = machines.with_suffix(".html").read_text(encoding="utf-8")
    return done.returncode, done.stdout + done.stderr, json.loads(machines.read_bytes()), page


@pytest.mark.parametrize("target", ["http", "sqs"])
def test_every_transaction_is_verified_and_compared_and_the_reports_say_so(tmp_path: Path, target: str) -> None:
    """All that were due, in both phases; the page stands alone, and its plots are well-formed."""
    status, said, report, page = run(tmp_path, "--target", target, "--objective", "max=60s", "--batch", "10")
    assert status == 0, said
    assert report["passed"]
    assert [phase["transactions"] for phase in report["phases"]] == [20, 40]
    assert report["proof"] == {
        "verified": 60, "compared_with_ledger_and_audit": True, "made_by_hsm": 60, "problems": [],
    }  # fmt: skip
    assert "60 signatures verified, and each is in the ledger and in the audit log" in said
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) >= 4
    assert all(ET.fromstring(plot).tag.endswith("svg") for plot in plots)  # noqa: S314 - we drew it
    assert not re.search(r"<script|<link|src=|href=", page)


def test_an_objective_that_is_not_met_ends_with_status_1(tmp_path: Path) -> None:
    """No HSM of 5 ms answers within one; the report says so, and the signatures are proven all the same."""
    status, said, report, page = run(tmp_path, "--target", "http", "--objective", "p50=1ms")
    assert status == 1
    assert not report["passed"]
    assert "FAILED steady: p50_ms was" in said
    assert "Not passed" in page
    assert report["proof"]["problems"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_early_reports_what_there_is(tmp_path: Path, number: signal.Signals) -> None:
    """What was sent is proven, and it has not passed; Ctrl-C goes to the whole group, and the service outlives it."""
    words, clean = command("--target", "http", "--rate", "20", "--duration", "600", "--objective", "max=60s")
    words += ["--warm-up", "1", "--most-lag-ms", "60000", "--reports", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=clean, stdout=pipe, stderr=pipe, text=True, process_group=0) as program:
        assert program.stderr is not None
        seen = next((line for line in program.stderr if line.startswith("steady")), None)
        assert seen is not None
        if number == signal.SIGINT:
            os.killpg(program.pid, number)
        else:
            program.send_signal(number)
        said, complained = program.communicate(timeout=60)
    report = json.loads((tmp_path / "loadtest-http.json").read_bytes())
    assert program.returncode == 128 + number, said + complained
    assert report["missed"] == [f"ended early, by {number.name}"]
    assert report["proof"]["compared_with_ledger_and_audit"]
    assert report["proof"]["problems"] == []
    assert 0 < report["proof"]["verified"] == sum(phase["transactions"] for phase in report["phases"]) < 12_000
    assert not report["passed"]


@pytest.mark.parametrize("more", [["--url", "https://signer.example"], ["--inbound-url", "https://sqs.example/1/in"]])
def test_a_service_that_runs_already_needs_a_key_to_verify_with(more: list[str]) -> None:
    """What it says of itself would prove nothing."""
    words, clean = command("--target", "http", *more)
    done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "needs --public-key" in done.stderr
