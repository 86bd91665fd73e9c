"""Which version of a key is in force: a plan, a moment, and what is known of each version."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from signer.ports import KeyVersion, VersionState

KEY_SET_MAX_AGE_S: Final = 300
"""How long others may go on with the key set that they have."""
LEAD_LOOKS: Final = 3
"""A key that is found late is published for so many look intervals before it signs.

Every task finds it within one of them, or a little more; a key set without it is kept for another at most.
"""


class Standing(StrEnum):
    """What is known of a version's fitness to sign."""

    READY = "ready"
    """It passed its checks and a test signature."""
    UNDECIDED = "undecided"
    """It passed its checks at start; whether it can sign is not known yet."""
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as far as the choice is concerned; times are UTC."""

    signs_from: datetime | None
    """As planned, or later, if its key was found too late for that. None: since ever."""
    verify_until: datetime | None
    """From then on nobody accepts what it signs. None: no end is set."""
    standing: Standing

    def is_due(self, at: datetime) -> bool:
        """Tell whether its time has come."""
        return self.signs_from is None or self.signs_from <= at

    def is_over(self, at: datetime) -> bool:
        """Tell whether it is a version no more."""
        return self.verify_until is not None and self.verify_until <= at


def in_force(candidates: Sequence[Candidate], at: datetime) -> int | None:
    """Give the index, eldest first, of the version that signs `at` that moment; None if none may.

    It is the youngest whose time has come and that is ready: its elder stays until then. While that is undecided,
    neither signs, unless there is but one: the elder's signatures would be wrong if the younger proves to be ready.
    """
    due = [index for index, item in enumerate(candidates) if item.is_due(at) and not item.is_over(at)]
    able = [index for index in due if candidates[index].standing is not Standing.NOT_READY]
    if not able or (len(able) > 1 and candidates[able[-1]].standing is Standing.UNDECIDED):
        return None
    return able[-1]


def states(candidates: Sequence[Candidate], at: datetime) -> list[VersionState | None]:
    """Give the state of each version `at` that moment; None for one that is over."""
    chosen = in_force(candidates, at)
    return [None if item.is_over(at) else _state(index, chosen) for index, item in enumerate(candidates)]


def keepable_s(versions: Iterable[KeyVersion], at: datetime, look_interval_s: float) -> int:
    """Give how many seconds a key set made `at` that moment may be kept, so that it lacks no key that signs by then.

    One that is not in it yet signs neither before its moment nor until others have had a look interval and more.
    """
    waits = [
        (version.active_from - at).total_seconds() if version.active_from is not None else 0.0
        for version in versions
        if version.key is None and version.state is VersionState.UPCOMING
    ]
    return int(min(KEY_SET_MAX_AGE_S, max(look_interval_s, min(waits, default=KEY_SET_MAX_AGE_S))))


def _state(index: int, chosen: int | None) -> VersionState:
    if chosen is None or index > chosen:
        return VersionState.UPCOMING
    return VersionState.ACTIVE if index == chosen else VersionState.RETIRED
