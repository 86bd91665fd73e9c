"""Named places where a crash test lets the process die; none is armed unless a setting says so, never in production."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from signer.errors import ConfigurationError

NAMES: Final = (
    "received",
    "claimed",
    "signed",
    "verified",
    "audit_writing",
    "audited",
    "completed",
    "ledger_writing",
    "storing",
    "stored",
    "forwarding",
    "forwarded",
    "deleting",
    "deleted",
    "quarantining",
    "quarantined",
)
"""`*ing`: in the middle of that write; the others: right after it."""

_LONGEST_CUT_S: Final = 0.02
_RANDOM: Final = random.SystemRandom()

_left: dict[str, int] = {}
_lock = threading.Lock()


def arm(name: str, times: int) -> None:
    """Let the process die, as by `kill -9`, when it comes by `name` for the `times`th time.

    Raises `ConfigurationError` for a name that there is not.
    """
    if name not in NAMES:
        msg = f"there is no such failpoint; there are {', '.join(NAMES)}"
        raise ConfigurationError(msg)
    _left[name] = times


def reach(name: str, half: Callable[[], object] | None = None) -> None:
    """Come by `name`; what is cut in the `half` is done first, if this is the end."""
    if _left:
        _strike(name, half)


def cut_short(call: Callable[[], object]) -> Callable[[], None]:
    """Give the half of a call over the network: begun, and given up after a few milliseconds, wherever it is then."""

    def half() -> None:
        threading.Thread(target=call, daemon=True).start()
        time.sleep(_RANDOM.uniform(0, _LONGEST_CUT_S))

    return half


def _strike(name: str, half: Callable[[], object] | None) -> None:
    with _lock:
        if name not in _left:
            return
        _left[name] -= 1
        if _left[name]:
            return
        if half is not None:
            half()
        os.kill(os.getpid(), signal.SIGKILL)
        # SIGKILL comes with the next return to user mode; nobody goes on meanwhile.
        threading.Event().wait()
