"""Puts on record what became of the policy, on a thread of its own: who looks for kills does not wait for that."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Gauge

from signer.errors import UnavailableError
from signer.logs import Logger, frames_of
from signer.policy import Policy
from signer.ports import AuditEntry, AuditLog

RETRY_S: Final = 0.25
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Noted:
    """What is to be on record, and what depends on that."""

    entries: tuple[AuditEntry, ...]
    policy: Policy | None = None
    """Comes into force when they are; None: nothing does."""


class PolicyRecorder:
    """Takes notes into `audit` one after the other, each as often as it takes; says to `recorded` which is."""

    def __init__(self, audit: AuditLog, recorded: Callable[[Noted], None], logger: Logger, unrecorded: Gauge) -> None:
        self._audit = audit
        self._recorded = recorded
        self._logger = logger
        self._unrecorded = unrecorded
        self._changed = threading.Condition()
        self._waiting: deque[Noted] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-records", daemon=True)

    @property
    def has_room(self) -> bool:
        """Whether there is room for another note; who finds none keeps it, and comes again."""
        return len(self._waiting) < _MOST

    def waiting(self) -> tuple[Noted, ...]:
        """Give what is not on record yet, eldest first."""
        with self._changed:
            return tuple(self._waiting)

    def note(self, noted: Noted) -> None:
        """Have it recorded after all that was noted before; returns at once."""
        with self._changed:
            self._waiting.append(noted)
            self._unrecorded.set(len(self._waiting))
            self._changed.notify()

    def record(self) -> bool:
        """Record all that waits; False if the audit log does not take it now."""
        while waiting := self.waiting():
            first = waiting[0]
            try:
                self._audit.append(first.entries)
            except UnavailableError as error:
                self._logger.warning("policy.not_recorded", reason=error.message, waiting=len(waiting))
                return False
            try:
                self._recorded(first)
            finally:  # it is on record, and not twice
                with self._changed:
                    self._waiting.popleft()
                    self._unrecorded.set(len(self._waiting))
        return True

    def start(self) -> None:
        """Begin to record."""
        self._thread.start()

    def close(self) -> None:
        """Try once more to record what waits, and end."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            closing = self._closing.is_set()
            done = self._try()
            if closing:
                return
            if not done:
                self._closing.wait(RETRY_S)

    def _try(self) -> bool:
        try:
            return self.record()
        except Exception as error:  # noqa: BLE001 - without this thread no right would ever come into force
            self._logger.error(  # noqa: TRY400 - the exception's text could quote a file
                "policy.failed", error_type=type(error).__name__, traceback=frames_of(error)
            )
            return False
