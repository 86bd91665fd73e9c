"""For calls into the module at whose end nobody can wait: C_CloseSession and C_Finalize may hang like any other."""

import threading
from collections.abc import Callable


def ends_in_time(work: Callable[[], None], timeout_s: float) -> bool:
    """Do `work`, which must not raise, on a thread of its own; False: it goes on, and was left behind."""
    # A daemon: one that hangs in the module must not keep the process alive.
    thread = threading.Thread(target=work, name="hsm-bounded", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive()
