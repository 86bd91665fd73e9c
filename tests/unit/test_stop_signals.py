"""A service that is asked to stop at any moment stops."""

import random
import subprocess
import sys
import time

_PROGRAM = """
import os, sys, threading
from signer import stop_signals

def spin():
    while True: pass

stop_signals.hold()
sys.setswitchinterval(0.001)
for _ in range(3):
    threading.Thread(target=spin, daemon=True).start()
os.write(1, b".")
stop_signals.wait()
os._exit(7)
"""


def test_a_signal_is_heard_whenever_it_comes() -> None:
    """While the main thread begins to wait, too, with other threads in its way; an event set by a handler hung here."""
    spread_s = random.Random(1)  # noqa: S311 - no secret
    for _ in range(40):
        with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.read(1) == b"."
            until_s = time.perf_counter() + spread_s.random() * 1e-3
            while time.perf_counter() < until_s:
                pass
            program.terminate()
            try:
                assert program.wait(20) == 7
            finally:
                program.kill()
