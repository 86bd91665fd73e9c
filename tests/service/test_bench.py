"""The benchmark from end to end, as short as it can be: what it says is proven, and is what bench.json holds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.stores import wait_until

# Over a shim of its own, whatever the run is over.
pytestmark = pytest.mark.once


def bench(tmp_path: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Give the words and the environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    places = ["--reports", str(tmp_path), "--directory", str(tmp_path / "work")]
    return [sys.executable, "-m", "loadtest.bench", "--modules", "softhsm", *places, *arguments], clean


def commands_of_group(group: int) -> list[list[str]]:
    """Give the command line of each process of a process group."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # The fields after the name, which may hold anything (proc_pid_stat(5)): state, parent, group.
            fields = (process / "stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((process / "cmdline").read_text(encoding="utf-8").split("\0"))
        except OSError:
            continue
    return found


def test_a_path_is_measured_beside_the_limit_of_its_module(tmp_path: Path) -> None:
    """Rate, limit, CPU and memory of one path, the start, and every signature verified and recorded."""
    words, clean = bench(tmp_path, "--paths", "http-batch-10", "--signatures", "0", "--rounds", "1", "--seconds", "0.5")
    done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "bench.json").read_bytes())
    (row,), (start,) = report["paths"], report["extra"]
    assert (row["path"], row["module"]) == ("http-batch-10", "softhsm")
    assert all(
        row[figure] > 0
        for figure in ("rate", "limit_rate", "ratio", "service_cpu_us", "limit_cpu_us", "p50_ms", "rss_mb")
    )
    assert 0 < row["ratio"] < 2
    assert start["start_cpu_s"] > 0
    assert "signatures verified, in the ledger and in the audit log" in done.stdout
    assert {"processor", "cores", "python"} <= report["machine"].keys()


def test_sigterm_leaves_nothing_running(tmp_path: Path) -> None:
    """Neither service nor emulator: each would hold its port and a core."""
    words, clean = bench(tmp_path, "--paths", "http-batch-10", "--seconds", "60")
    with subprocess.Popen(words, env=clean, stdout=subprocess.DEVNULL, process_group=0) as program:
        wait_until(lambda: any("serve" in words for words in commands_of_group(program.pid)))
        program.terminate()
        assert program.wait(60) == 128 + signal.SIGTERM
        wait_until(lambda: commands_of_group(program.pid) == [])
