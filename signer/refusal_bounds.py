"""Refusals by the policy on record: one for a call that is refused whole, and a flood of them counted.

What is refused costs the one who asks nothing, so records are bounded: so many of one caller in a minute, ten times as
many of all. The rest is told by one record for each caller and code when the minute is over.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from signer.errors import (
    KilledError,
    NotAuthorisedError,
    RateLimitedError,
    SignerError,
    TooManyTransactionsError,
    TransactionIdRequiredError,
    UnknownKeyError,
)
from signer.ports import AuditEntry

WINDOW_S: Final = 60.0
PER_MINUTE: Final = 60
_CALLERS_TOGETHER: Final = 10
_BOUNDED: Final = (
    KilledError, NotAuthorisedError, RateLimitedError, TooManyTransactionsError, TransactionIdRequiredError,
    UnknownKeyError,
)  # fmt: skip
"""What the policy and its limits say; everything else has its record, however often."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Record(Generic[Item]):
    """An entry for the audit log, and what it tells of."""

    entry: AuditEntry
    items: Sequence[Item]


class RefusalBounds:
    """Says which refusals have a record of their own; safe to use from every thread."""

    def __init__(
        self,
        clock_s: Callable[[], float],
        per_minute: int = PER_MINUTE,
        count: Callable[[str], None] = lambda _code: None,
    ) -> None:
        """`count` is called with the code of each refusal, recorded or not."""
        self._clock_s = clock_s
        self._per_minute = per_minute
        self._count = count
        self._lock = threading.Lock()
        self._window_ends_s = clock_s() + WINDOW_S
        self._recorded: Counter[str] = Counter()
        self._of_all = 0
        self._untold: Counter[tuple[str | None, str]] = Counter()
        """By caller (None: several) and code."""
        self._is_due = False

    def admit(self, caller: str, error: SignerError) -> bool:
        """Tell whether a refusal is to be recorded, and count it if not."""
        if not isinstance(error, _BOUNDED):
            return True
        self._count(error.code)
        with self._lock:
            self._begin_window()
            own = self._recorded[caller]
            if own < self._per_minute and self._of_all < self._per_minute * _CALLERS_TOGETHER:
                self._recorded[caller] += 1
                self._of_all += 1
                return True
            # So many callers came to their own bound as fit into that of all: what is kept here is bounded, too.
            self._untold[caller if own >= self._per_minute else None, error.code] += 1
            return False

    def take_untold(self, now: str, *, closing: bool = False) -> list[AuditEntry]:
        """Give, once, the records of what was not recorded one by one; none before its minute is over, or `closing`."""
        with self._lock:
            self._begin_window()
            if not (self._is_due or closing):
                return []
            untold, self._untold, self._is_due = self._untold, Counter(), False
        return [
            AuditEntry(
                now, "authorise", "refused", code, entrance="service", caller=caller,
                detail=f"{number} more refusals with this code, not recorded one by one",
            )
            for (caller, code), number in untold.items()
        ]  # fmt: skip

    def records(
        self,
        caller: str,
        items: Sequence[Item],
        refusal_of: Callable[[Item], SignerError | None],
        entry_of: Callable[[Item], AuditEntry],
    ) -> list[Record[Item]]:
        """Give what is to be recorded of the items of one call: one record for all where all have one refusal."""
        refusals = [refusal_of(item) for item in items]
        if len(items) > 1 and _is_one(refusals):
            whole = refusals[0] is None or self.admit(caller, refusals[0])
            return [Record(_of_all([entry_of(item) for item in items]), items)] if whole else []
        return [
            Record(entry_of(item), (item,))
            for item, refusal in zip(items, refusals, strict=True)
            if refusal is None or self.admit(caller, refusal)
        ]

    def _begin_window(self) -> None:
        if self._clock_s() >= self._window_ends_s:
            self._window_ends_s = self._clock_s() + WINDOW_S
            self._recorded.clear()
            self._of_all = 0
            self._is_due = True


def _is_one(refusals: Sequence[SignerError | None]) -> bool:
    first = refusals[0]
    return isinstance(first, _BOUNDED) and all(each is not None and each.code == first.code for each in refusals)


def _of_all(entries: Sequence[AuditEntry]) -> AuditEntry:
    """Tell of a whole call: what its transactions have in common, and how many they are."""

    def common(member: str) -> Any:
        values = {getattr(entry, member) for entry in entries}
        return values.pop() if len(values) == 1 else None

    shared = {member: common(member) for member in ("key_alias", "algorithm", "mechanism")}
    return replace(entries[0], transaction_id=None, digest=None, detail=f"{len(entries)} transactions", **shared)
