"""Who was not let in, on the way into the audit log: each refusal recorded, and a flood of them counted.

What is refused costs the one who asks nothing, so records are bounded: so many of one peer in a minute, and ten times
as many of all who prove nothing. Where it is known who asks, so many of one caller, and ten times as many of all with
this code: no noise of others hides who is killed. The rest is told by one record a minute for each code, and caller.
The event loop only notes; a thread writes.
"""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from signer.errors import CallerKilledError, NotAuthorisedError, UnavailableError
from signer.logs import Logger
from signer.metrics import Metrics
from signer.ports import AuditEntry, AuditLog
from signer.refusal_bounds import Shares, told
from signer.work import timestamp

OPERATION: Final = "authenticate"
ADMISSION: Final = "admit"
"""It is known who asks, and the policy does not name that caller, or the kill switch stops it."""
_OF_KNOWN_CALLERS: Final = frozenset({NotAuthorisedError.code, CallerKilledError.code})
_LOOK_S: Final = 1.0
"""So often is looked whether a minute is over."""


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
    def operation(self) -> str:
        """What the audit log calls it."""
        return ADMISSION if self.code in _OF_KNOWN_CALLERS else OPERATION

    @property
    def source(self) -> str:
        """Whose share of the records it takes: callers behind one balancer have one address."""
        return self.caller or self.peer or ""


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is to be on record, and how many refusals that tells of."""

    refusal: Refusal
    entry: AuditEntry
    number: int = 1


class RefusalLog:
    """Writes refusals into `audit` and the log; its thread runs until `close`."""

    def __init__(
        self,
        audit: AuditLog,
        metrics: Metrics,
        logger: Logger,
        per_minute: int,
        clocks: tuple[Callable[[], datetime], Callable[[], float]],
    ) -> None:
        self._audit = audit
        self._metrics = metrics
        self._logger = logger
        self._wall_clock, clock_s = clocks
        self._changed = threading.Condition()
        self._waiting: list[_Noted] = []
        self._of_peers = Shares(clock_s, per_minute)
        self._of_callers: defaultdict[str, Shares] = defaultdict(partial(Shares, clock_s, per_minute))
        """By code, of which there are few."""
        self._closing = False
        self._writer = threading.Thread(target=self._run, name="refusals", daemon=True)
        self._writer.start()

    def add(self, refusal: Refusal) -> None:
        """Note a refusal; returns at once."""
        is_known = refusal.operation == ADMISSION
        counter = self._metrics.policy.refusals if is_known else self._metrics.auth.refusals
        counter.labels(refusal.code).inc()
        with self._changed:
            shares = self._shares(refusal)
            if self._closing:
                shares.count(refusal.source, refusal.code)
                return
            if not shares.take(refusal.source, refusal.code):
                return
            self._waiting.append(self._noted(refusal))
            self._changed.notify()
        event = "admission.refused" if is_known else "authentication.refused"
        self._logger.log(logging.INFO, event, code=refusal.code, peer=refusal.peer, request_id=refusal.request_id)

    def close(self) -> None:
        """Write what was noted, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join()

    def _shares(self, refusal: Refusal) -> Shares:
        return self._of_peers if refusal.caller is None else self._of_callers[refusal.code]

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing, _LOOK_S)
                closing = self._closing
                noted, self._waiting = self._waiting, []
            self._append(noted)
            self._append(self._untold(closing=closing))

    def _untold(self, *, closing: bool) -> list[_Noted]:
        """Give what was too much to be recorded one by one, or could not be: of peers by code alone."""
        with self._changed:
            of_callers = list(self._of_callers.values())
        untold: Counter[tuple[str | None, str]] = Counter()
        for (_, code), number in self._of_peers.take_untold(closing=closing).items():
            untold[None, code] += number
        for shares in of_callers:
            untold.update(shares.take_untold(closing=closing))
        return [
            self._noted(Refusal(code, None, detail=told(number), caller=caller), number)
            for (caller, code), number in untold.items()
        ]

    def _append(self, noted: Sequence[_Noted]) -> None:
        if not noted:
            return
        try:
            self._audit.append([each.entry for each in noted])
        except UnavailableError:
            # Nobody was let in, and the readiness tells of the trouble; the next minute's record tells how many.
            with self._changed:
                for each in noted:
                    self._shares(each.refusal).count(each.refusal.source or None, each.refusal.code, each.number)

    def _noted(self, refusal: Refusal, number: int = 1) -> _Noted:
        return _Noted(refusal, self._entry(refusal), number)

    def _entry(self, refusal: Refusal) -> AuditEntry:
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation=refusal.operation,
            outcome="refused",
            error_code=refusal.code,
            caller=refusal.caller,
            entrance="http",
            channel=refusal.peer,
            message_id=refusal.request_id,
            detail=refusal.detail,
        )
