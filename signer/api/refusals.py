"""Who was not let in, on the way into the audit log: each refusal recorded, and a flood of them counted.

What is refused costs the one who asks nothing, so records are bounded: so many of one peer in a minute, or of one
caller where it is known who that is, ten times as many of all. The rest is told by one record a minute for each code.
The event loop only notes; a thread writes.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from signer.errors import CallerKilledError, NotAuthorisedError, UnavailableError
from signer.logs import Logger
from signer.metrics import AuthMetrics
from signer.ports import AuditEntry, AuditLog
from signer.work import timestamp

OPERATION: Final = "authenticate"
ADMISSION: Final = "admit"
"""It is known who asks, and the policy does not name that caller, or the kill switch stops it."""
WINDOW_S: Final = 60.0
_SOURCES_TOGETHER: Final = 10
_OF_KNOWN_CALLERS: Final = frozenset({NotAuthorisedError.code, CallerKilledError.code})
_SOURCES_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Somebody was not let in."""

    code: str
    peer: str | None
    """The address at the other end of the connection; None: many."""
    request_id: str | None = None
    """None: it never came to a request."""
    detail: str | None = None
    """For people; never input."""
    caller: str | None = None
    """Who was refused, where that was proven."""

    @property
    def source(self) -> str:
        """Whose share of the records it takes: callers behind one balancer have one address."""
        return self.caller or self.peer or ""


class RefusalLog:
    """Writes refusals into `audit` and the log; its thread runs until `close`."""

    def __init__(
        self,
        audit: AuditLog,
        metrics: AuthMetrics,
        logger: Logger,
        per_minute: int,
        clocks: tuple[Callable[[], datetime], Callable[[], float]],
    ) -> None:
        self._audit = audit
        self._metrics = metrics
        self._logger = logger
        self._wall_clock, self._clock = clocks
        self._per_minute = per_minute
        self._window_ends_s = self._clock() + WINDOW_S
        self._changed = threading.Condition()
        self._waiting: list[AuditEntry] = []
        self._of_source: Counter[str] = Counter()
        self._recorded = 0
        self._suppressed: Counter[str] = Counter()
        self._closing = False
        self._writer = threading.Thread(target=self._run, name="refusals", daemon=True)
        self._writer.start()

    def add(self, refusal: Refusal) -> None:
        """Note a refusal; returns at once."""
        self._metrics.refusals.labels(refusal.code).inc()
        with self._changed:
            self._changed.notify()
            if not self._has_room(refusal.source):
                self._suppressed[refusal.code] += 1
                return
            self._of_source[refusal.source] += 1
            self._recorded += 1
            self._waiting.append(self._entry(refusal))
        event = "admission.refused" if refusal.code in _OF_KNOWN_CALLERS else "authentication.refused"
        self._logger.log(logging.INFO, event, code=refusal.code, peer=refusal.peer, request_id=refusal.request_id)

    def close(self) -> None:
        """Write what was noted, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()

    def _has_room(self, source: str) -> bool:
        # Beyond so many there is a flood from everywhere, and the bound for all together has been reached.
        is_known = source in self._of_source or len(self._of_source) < _SOURCES_REMEMBERED
        within = self._of_source[source] < self._per_minute and self._recorded < self._per_minute * _SOURCES_TOGETHER
        return is_known and within and not self._closing

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(self._has_work, max(0.0, self._window_ends_s - self._clock()))
                closing, window_is_over = self._closing, self._window_is_over()
                entries, self._waiting = self._waiting, []
                if window_is_over:
                    self._begin_window()
            self._append(entries, Counter(entry.error_code or "" for entry in entries))
            if closing or window_is_over:
                self._append_counts()

    def _has_work(self) -> bool:
        return bool(self._waiting) or self._closing or self._window_is_over()

    def _window_is_over(self) -> bool:
        return self._clock() >= self._window_ends_s

    def _begin_window(self) -> None:
        self._window_ends_s = self._clock() + WINDOW_S
        self._recorded = 0
        self._of_source.clear()

    def _append_counts(self) -> None:
        """Tell of all that was too much to be recorded one by one, or could not be."""
        with self._changed:
            counts, self._suppressed = self._suppressed, Counter()
        entries = [
            self._entry(Refusal(code, None, detail=f"{count} more refusals with this code, not recorded one by one"))
            for code, count in counts.items()
        ]
        self._append(entries, counts)

    def _append(self, entries: list[AuditEntry], counts: Counter[str]) -> None:
        if not entries:
            return
        try:
            self._audit.append(entries)
        except UnavailableError:
            # Nobody was let in, and the readiness tells of the trouble; the next window tells how many there were.
            with self._changed:
                self._suppressed.update(counts)

    def _entry(self, refusal: Refusal) -> AuditEntry:
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation=ADMISSION if refusal.code in _OF_KNOWN_CALLERS else OPERATION,
            outcome="refused",
            error_code=refusal.code,
            caller=refusal.caller,
            entrance="http",
            channel=refusal.peer,
            message_id=refusal.request_id,
            detail=refusal.detail,
        )
