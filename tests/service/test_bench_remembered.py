"""The benchmark over a service that signs each digest once and remembers it: every answer verifies, and none counts."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.bench.extras import memory, steady_rate
from loadtest.proof import NotProvenError
from tests.service.test_bench import bench

# Over a shim of its own, whatever the run is over.
pytestmark = pytest.mark.once

REMEMBERS = """
import sys

if "serve" in sys.orig_argv:
    from signer.hsm.cryptoki import Signing

    really, known = Signing.sign, {}

    def sign(self, session_handle, key_handle, mechanism, data):
        if data not in known:
            known[data] = really(self, session_handle, key_handle, mechanism, data)
        return known[data]

    Signing.sign = sign
"""
"""Python runs it as `sitecustomize` at the start of each process."""


@pytest.fixture(autouse=True)
def remembering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every service that is started signs each digest once, over a module that only the benchmark chooses."""
    for name in [name for name in os.environ if name.startswith(("SIGNER_", "SOFTHSM2_MODULE"))]:
        monkeypatch.delenv(name)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(REMEMBERS, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


def test_no_figure_is_given(tmp_path: Path) -> None:
    """By its module's own count it has signed 500 digests, whatever came out."""
    words, clean = bench(tmp_path, "--paths", "sqs-500", "--signatures", "0", "--rounds", "1", "--seconds", "0.5")
    done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not proven" in done.stdout
    assert "were made by the HSM" in done.stdout
    assert not (tmp_path / "bench.json").exists()


@pytest.mark.parametrize("measure", [lambda where: steady_rate(where, 1.0), lambda where: memory(where, 1)])
def test_neither_the_latency_nor_the_memory_counts(tmp_path: Path, measure: Callable[[Path], object]) -> None:
    """Where the module replays, each signature is asked of it all the same."""
    with pytest.raises(NotProvenError, match="were made by the HSM"):
        measure(tmp_path / "work")
