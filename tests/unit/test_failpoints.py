"""A failpoint ends the process at the very place and time that was asked for, and is nothing at all otherwise."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from signer import failpoints
from signer.errors import ConfigurationError
from signer.settings import Settings

ROOT = Path(__file__).parents[2]
REACHED = re.compile(r'failpoints\.reach\("([a-z_]+)"')
PROGRAM = """
import sys
from signer import failpoints
{arm}
for number in range(1, 6):
    print(number, flush=True)
    failpoints.reach("claimed", lambda: print("half", flush=True))
"""


def come_by(arm: str) -> tuple[int, list[str]]:
    """Come by `claimed` five times in a process of its own; gives its status, and what it said."""
    command = [sys.executable, "-c", PROGRAM.format(arm=arm)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.split()


def test_the_process_dies_at_the_time_that_was_asked_for() -> None:
    """Killed as by `kill -9` the third time, after the half that is cut: nothing comes behind it."""
    assert come_by('failpoints.arm("claimed", 3)') == (-signal.SIGKILL, ["1", "2", "3", "half"])


@pytest.mark.parametrize("arm", ["", 'failpoints.arm("signed", 1)', 'failpoints.arm("claimed", 6)'])
def test_nothing_happens_anywhere_else(arm: str) -> None:
    """Unarmed, armed elsewhere, or not yet: the process goes by, and does no half of anything."""
    assert come_by(arm) == (0, ["1", "2", "3", "4", "5"])


def test_nobody_goes_on_while_the_half_is_done() -> None:
    """Other threads that come by wait for the end of the process, too."""
    together = """
import threading, time
failpoints.arm("claimed", 1)
def come_by():
    failpoints.reach("claimed", lambda: time.sleep(0.2))
    print("by", flush=True)
threads = [threading.Thread(target=come_by) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    assert come_by(together) == (-signal.SIGKILL, [])


def test_a_failpoint_that_there_is_not_is_refused() -> None:
    """A misspelt name would be a crash test that tests nothing."""
    with pytest.raises(ConfigurationError, match="no such failpoint"):
        failpoints.arm("claimd", 1)


def test_production_has_no_failpoints() -> None:
    """Unless the settings say that the token is none of production's, a failpoint refuses them all."""
    values: dict[str, Any] = {
        "hsm": {"module": "/m", "token": "t", "pin_file": "/p"},
        "keys": {"settlement": {"label": "k"}},
        "ledger": {"path": "l"},
        "audit": {"directory": "a"},
        "failpoint": "claimed:2",
    }
    with pytest.raises(ValueError, match=r"a failpoint needs hsm.production = false"):
        Settings(**values)
    playground = {**values["hsm"], "production": False}
    assert Settings(**{**values, "hsm": playground}).failpoint == "claimed:2"


def test_every_failpoint_is_somewhere() -> None:
    """Each name is reached by the service, and nothing is reached that has no name."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "signer").rglob("*.py")]
    assert {name for text in sources for name in REACHED.findall(text)} == set(failpoints.NAMES)
