"""Many threads on one module: sound with OS locking, and seen to break without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from signer.demo.stack import Token
from tests.hsm.conftest import GOOD_LABEL


def hammer(token: Token, total: int, locking: str) -> subprocess.CompletedProcess[str]:
    """Run the hammer as a process of its own."""
    script = Path(__file__).with_name("hammer.py")
    arguments = [token.module, token.label, token.pin_file, GOOD_LABEL, str(total), locking]
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, **token.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def verified(done: subprocess.CompletedProcess[str]) -> str:
    """How many signatures verified: the last line, after those of the log."""
    return done.stdout.strip().rpartition("\n")[2]


@pytest.mark.timeout(300)
def test_sixteen_threads_sign_twenty_thousand(token: Token) -> None:
    """16 threads with a session each make 20,000 signatures under both algorithms, and every one verifies."""
    done = hammer(token, 20_000, "on")
    assert (done.returncode, verified(done)) == (0, "20000"), done.stderr


@pytest.mark.timeout(300)
def test_the_hammer_breaks_an_unlocked_module(token: Token) -> None:
    """Without CKF_OS_LOCKING_OK the same hammer crashes or loses signatures: the test above can fail."""
    # Most times at once; beside other work the threads may seldom meet.
    outcomes = (hammer(token, 2_000, "off") for _ in range(12))
    assert any((done.returncode, verified(done)) != (0, "2000") for done in outcomes)
