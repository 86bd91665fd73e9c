"""What is known about one request while it is being answered."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from signer.api.errors import ClientGoneError
from signer.deadlines import Deadline
from signer.metrics import Stopwatch
from signer.ports import Origin

ENTRANCE: Final = "http"


@dataclass(slots=True)
class Exchange:
    """One request, from its first header to the line that it leaves in the log."""

    origin: Origin
    client_request_id: str | None
    deadline: Deadline
    watch: Stopwatch
    client_is_gone: Callable[[], bool]
    accepted_still: Callable[[], None]
    """Raises an error once the client's certificate was accepted by TLS files that are no longer in force."""
    arrived_s: float = field(default_factory=time.perf_counter)
    audit_id: str | None = None
    """Of the record that tells of it, once there is one."""
    about: dict[str, Any] = field(default_factory=dict)
    """What its line in the log says of it; never input that is not well-formed."""
    done: str | None = None
    """What that line is named for, if for something else than its kind is, such as `rehearsed`."""

    def require_client(self) -> None:
        """Raise `ClientGoneError` if nobody waits for the answer, or an error if the client is no longer accepted."""
        if self.client_is_gone():
            msg = "the client hung up before work on its request began"
            raise ClientGoneError(msg)
        self.accepted_still()

    def begin_work(self) -> None:
        """Note that a thread has taken it up; raises `DeadlineExceededError`."""
        self.watch.add("admission", time.perf_counter() - self.arrived_s)
        self.deadline.check()
