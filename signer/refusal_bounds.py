"""Refusals by the policy on record: one for a call that is refused whole, and a flood of them counted.

What is refused costs the one who asks nothing, so records are bounded: so many of one caller in a minute, ten times as
many of all. The rest is told by one record for each caller and code when the minute is over.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from signer.errors import (
    KilledError,
    NotAuthorisedError,
    RateLimitedError,
    SignerError,
    TooManyTransactionsError,
    TransactionIdRequiredError,
    UnavailableError,
    UnknownKeyError,
)
from signer.ports import AuditEntry, AuditLog

WINDOW_S: Final = 60.0
PER_MINUTE: Final = 60
_SOURCES_TOGETHER: Final = 10
_BOUNDED: Final = (
    KilledError, NotAuthorisedError, RateLimitedError, TooManyTransactionsError, TransactionIdRequiredError,
    UnknownKeyError,
)  # fmt: skip
"""What the policy and its limits say; everything else has its record, however often."""

Untold = Counter[tuple[str | None, str]]
"""How many have no record, by source (None: several) and code."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Record(Generic[Item]):
    """An entry for the audit log, and what it tells of."""

    entry: AuditEntry
    items: Sequence[Item]


class Shares:
    """So many records of one source in a minute, ten times as many of all; what is beyond is counted.

    Safe to use from every thread.
    """

    def __init__(self, clock_s: Callable[[], float], per_minute: int) -> None:
        self._clock_s = clock_s
        self._per_minute = per_minute
        self._of_all = per_minute * _SOURCES_TOGETHER
        self._lock = threading.Lock()
        self._window_ends_s = clock_s() + WINDOW_S
        self._recorded: Counter[str] = Counter()
        self._left = self._of_all
        self._untold: Untold = Counter()
        self._is_due = False

    def take(self, source: str, code: str) -> bool:
        """Tell whether there is to be a record, and count it if not."""
        with self._lock:
            self._begin_window()
            own = self._recorded[source]
            if own < self._per_minute and self._left:
                self._recorded[source] += 1
                self._left -= 1
                return True
            # So many came to their own bound as fit into that of all: what is kept here is bounded, too.
            self._count(source if own >= self._per_minute else None, code, 1)
            return False

    def count(self, source: str | None, code: str, number: int = 1) -> None:
        """Count what was to be recorded, and could not be."""
        with self._lock:
            self._count(source, code, number)

    def take_untold(self, *, closing: bool = False) -> Untold:
        """Give, once, what has no record; nothing before its minute is over, or `closing`."""
        with self._lock:
            self._begin_window()
            if not (self._is_due or closing):
                return Counter()
            untold, self._untold, self._is_due = self._untold, Counter(), False
            return untold

    def _count(self, source: str | None, code: str, number: int) -> None:
        # However long the audit log takes nothing, and whatever names come meanwhile.
        is_named = (source, code) in self._untold or len(self._untold) < self._of_all
        self._untold[source if is_named else None, code] += number

    def _begin_window(self) -> None:
        if self._clock_s() >= self._window_ends_s:
            self._window_ends_s = self._clock_s() + WINDOW_S
            self._recorded.clear()
            self._left = self._of_all
            self._is_due = True


class RefusalBounds:
    """Says which refusals have a record of their own; safe to use from every thread."""

    def __init__(
        self,
        clock_s: Callable[[], float],
        per_minute: int = PER_MINUTE,
        count: Callable[[str], None] = lambda _code: None,
    ) -> None:
        """`count` is called with the code of each refusal, recorded or not."""
        self._shares = Shares(clock_s, per_minute)
        self._count = count

    def admit(self, caller: str, error: SignerError) -> bool:
        """Tell whether a refusal is to be recorded, and count it if not."""
        if not isinstance(error, _BOUNDED):
            return True
        self._count(error.code)
        return self._shares.take(caller, error.code)

    def count_unrecorded(self, entries: Iterable[AuditEntry]) -> None:
        """Count the refusals among `entries`, which the audit log did not take: callers may have heard of them."""
        for entry in entries:
            code = entry.error_code
            if code is not None and (entry.outcome == "refused" or code == RateLimitedError.code):
                self._shares.count(entry.caller, code)

    def append(self, audit: AuditLog, entries: Sequence[AuditEntry]) -> list[str]:
        """Append `entries` to `audit` as it does; if it raises, the refusals among them are counted."""
        try:
            return audit.append(entries)
        except UnavailableError:
            self.count_unrecorded(entries)
            raise

    def take_untold(self, now: str, *, closing: bool = False) -> list[AuditEntry]:
        """Give, once, the records of what was not recorded one by one; none before its minute is over, or `closing`."""
        return [
            AuditEntry(
                now, "authorise", "refused", code, entrance="service", caller=caller, detail=told(number)
            )
            for (caller, code), number in self._shares.take_untold(closing=closing).items()
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
        common = _common(refusals)
        if common is not None:
            whole = self.admit(caller, common)
            return [Record(_whole([entry_of(item) for item in items]), items)] if whole else []
        return [
            Record(entry_of(item), (item,))
            for item, refusal in zip(items, refusals, strict=True)
            if refusal is None or self.admit(caller, refusal)
        ]


def told(number: int) -> str:
    """Say of a code how many have no record of their own."""
    return f"{number} more refusals with this code, not recorded one by one"


def _common(refusals: Sequence[SignerError | None]) -> SignerError | None:
    """Give what several were refused for, if that is one thing."""
    first, *others = refusals or [None]
    if not others or not isinstance(first, _BOUNDED):
        return None
    return first if all(each is not None and each.code == first.code for each in others) else None


def _whole(entries: Sequence[AuditEntry]) -> AuditEntry:
    """Tell of a whole call: what its transactions have in common, and how many they are."""

    def common(member: str) -> Any:
        values = {getattr(entry, member) for entry in entries}
        return values.pop() if len(values) == 1 else None

    shared = {member: common(member) for member in ("key_alias", "algorithm", "mechanism")}
    return replace(entries[0], transaction_id=None, digest=None, detail=f"{len(entries)} transactions", **shared)
