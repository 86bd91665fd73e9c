"""What the service holds: memory and file descriptors over time, sessions when nobody signs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from signer.drill.signs import total
from signer.drill.stage import Stage
from softhsm.shim.client import ShimError

_KIB: Final = 1024
_FIFTHS: Final = 5
_REST_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had at one moment."""

    memory_bytes: int
    """Resident."""
    descriptors: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A quantity early and late: the medians of the second fifth, when all is warm, and of the last fifth."""

    early: float
    late: float
    tolerance: float
    """How much more it may be in the end."""

    @property
    def flat(self) -> bool:
        """Whether it grew no more than that."""
        return self.late - self.early <= self.tolerance


@dataclass(frozen=True, slots=True)
class Sessions:
    """What is open when nobody signs."""

    module: int
    """As the shim counts them."""
    pool: int
    """As the service counts them; the one that holds the login comes on top."""

    @property
    def leaked(self) -> int:
        """How many are open that nobody has."""
        return self.module - self.pool - 1


def sample(pid: int) -> Sample | None:
    """Look at a process now; None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return None
    resident = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), None)
    # A zombie has no memory any more.
    return None if resident is None else Sample(int(resident) * _KIB, descriptors)


def trend(values: Sequence[float], least_tolerance: float, share: float) -> Trend:
    """Compare early with late; it may grow by `share` of what it was, or by `least_tolerance` if that is more."""
    fifth = max(1, len(values) // _FIFTHS)
    early, late = median(values[fifth : 2 * fifth] or values), median(values[-fifth:])
    return Trend(early, late, max(least_tolerance, share * early))


def sessions_at_rest(stage: Stage) -> Sessions | None:
    """Count sessions as soon as they agree, or after some patience as they are; None if the process is gone."""
    give_up_s = time.monotonic() + _REST_TIMEOUT_S
    while True:
        try:
            found = Sessions(stage.shim.counts().sessions, int(total(stage, "signer_sessions{")))
        except ShimError:
            return None
        # A probe may be on its way between the two counts.
        if found.leaked == 0 or time.monotonic() > give_up_s:
            return found
        time.sleep(_POLL_S)
