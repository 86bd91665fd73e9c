"""The benchmark from end to end, as short as it can be: what it says is proven, and is what bench.json holds."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_path_is_measured_beside_the_limit_of_its_module(tmp_path: Path) -> None:
    """Rate, limit, CPU and memory of one path, the start, and every signature verified and recorded."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))}
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.bench", "--paths", "http-batch-10", "--modules", "softhsm", "--signatures",
         "0", "--rounds", "1", "--seconds", "0.5", "--reports", str(tmp_path), "--directory", str(tmp_path / "work")],
        env=clean, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "bench.json").read_bytes())
    (row,), (start,) = report["paths"], report["extra"]
    assert (row["path"], row["module"]) == ("http-batch-10", "softhsm")
    assert all(row[figure] > 0 for figure in ("rate", "limit_rate", "ratio", "service_cpu_us", "p50_ms", "rss_mb"))
    assert 0 < row["ratio"] < 2
    assert start["start_cpu_s"] > 0
    assert "signatures verified, in the ledger and in the audit log" in done.stdout
    assert {"processor", "cores", "python"} <= report["machine"].keys()
