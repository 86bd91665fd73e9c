"""What a closed loop gives: as much as the service took, and how long each piece of it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

_THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """One run, from nothing under way to nothing under way."""

    signatures: int
    seconds: float
    latencies_ms: Sequence[float]
    """Of each request or batch."""

    @property
    def rate(self) -> float:
        """Signatures a second."""
        return self.signatures / self.seconds


class Load(Protocol):
    """Something that keeps the service busy."""

    def run(self, prefix: str, seconds: float) -> Run:
        """Keep it busy for so long, with transactions whose ids begin with `prefix`, and wait for all of them."""
        ...

    def verify(self) -> None:
        """Verify everything that came out since it was last called; raises `NotProvenError`."""
        ...


def percentile(values: Sequence[float], per_mille: int) -> float:
    """Give the value that so many of a thousand do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * per_mille // _THOUSAND)]
