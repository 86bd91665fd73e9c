"""A moment after which an answer is no longer wanted, passed down instead of a time-out for each step."""

import time
from dataclasses import dataclass
from typing import Self

from signer.errors import DeadlineExceededError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock."""

    at_s: float
    """`time.monotonic()` seconds."""

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Give the deadline that lies `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self) -> None:
        """Raise `DeadlineExceededError` once it has passed: before each piece of work that would be in vain."""
        if self.remaining_s() <= 0.0:
            msg = "the deadline passed before the work was done"
            raise DeadlineExceededError(msg)
