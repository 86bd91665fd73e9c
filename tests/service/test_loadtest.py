"""The load test from end to end, as people run it: a stack of its own, both entrances, and the report."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest


def run(tmp_path: Path, *arguments: str, most_lag_ms: float = 5000) -> tuple[int, str, dict[str, Any], str]:
    """Run it for seconds; gives exit status, what it said, and both reports.

    It puts the shim before SoftHSM itself, whatever this run of the tests is over.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    command = [sys.executable, "-m", "loadtest", "--rate", "50", "--duration", "5", "--warm-up", "1", *arguments]
    # How slow the machine of the tests is is not what they test.
    command += ["--most-lag-ms", str(most_lag_ms), "--reports", str(tmp_path / "reports")]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=110)
    (machines,) = (tmp_path / "reports").glob("*.json")
    page = machines.with_suffix(".html").read_text(encoding="utf-8")
    return done.returncode, done.stdout + done.stderr, json.loads(machines.read_bytes()), page


@pytest.mark.parametrize("target", ["http", "sqs"])
def test_every_transaction_is_verified_and_compared_and_the_reports_say_so(tmp_path: Path, target: str) -> None:
    """All that were due, in both phases; the page stands alone, and its plots are well-formed."""
    status, said, report, page = run(tmp_path, "--target", target, "--objective", "p99=60s", "--batch", "10")
    assert status == 0, said
    assert report["passed"]
    assert [phase["transactions"] for phase in report["phases"]] == [50, 250]
    assert report["proof"] == {
        "verified": 300, "compared_with_ledger_and_audit": True, "made_by_hsm": 300, "problems": [],
    }  # fmt: skip
    assert "300 signatures verified, and each is in the ledger and in the audit log" in said
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


def test_a_generator_that_fell_behind_ends_with_status_3(tmp_path: Path) -> None:
    """Nobody starts anything within no time at all."""
    status, said, report, _ = run(tmp_path, "--target", "http", "--objective", "p99=60s", most_lag_ms=0)
    assert status == 3
    assert "the generator fell behind" in said
    assert not report["passed"]
