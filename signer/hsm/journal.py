"""What the HSM edge has to tell: to metrics and log at once, and to the audit log when whoever keeps that one asks."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from signer.logs import Logger
from signer.metrics import HsmMetrics
from signer.ports import AuditEntry, SigningKey
from signer.work import timestamp


class Journal:
    """Metrics and logger of the HSM edge, and the incidents that await their audit record.

    The edge does not write the audit log itself: an incident happens in the middle of a request, on a thread that must
    not wait for a disk.
    """

    def __init__(self, metrics: HsmMetrics, logger: Logger, wall_clock: Callable[[], datetime]) -> None:
        self.metrics = metrics
        self.logger = logger
        self.wall_clock = wall_clock
        self._lock = threading.Lock()
        self._incidents: list[AuditEntry] = []

    def now(self) -> str:
        """Give the time as audit records and the latch have it (RFC 3339)."""
        return timestamp(self.wall_clock())

    def incident(
        self, operation: str, detail: str, key_alias: str | None = None, key: SigningKey | None = None
    ) -> None:
        """Note what belongs into the audit log; `detail` is for people and never holds what a caller sent."""
        entry = AuditEntry(self.now(), operation, "done", entrance="service", key_alias=key_alias, detail=detail)
        if key is not None:
            entry = replace(entry, key_label=key.label, key_fingerprint=key.fingerprint)
        with self._lock:
            self._incidents.append(entry)

    def take_incidents(self) -> list[AuditEntry]:
        """Give each incident once, in order; who takes them keeps them until they are durable."""
        with self._lock:
            incidents, self._incidents = self._incidents, []
        return incidents
