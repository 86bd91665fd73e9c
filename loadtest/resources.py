"""What a phase used: CPU of each process that takes part, and the HSM sessions that were busy."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softhsm.shim.client import Shim

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_SIGNING: Final = ("C_Sign", "C_SignInit")


@dataclass(frozen=True, slots=True)
class Reading:
    """Sums since the beginning."""

    at_s: float
    cpu_s: Mapping[str, float]
    signing_ms: float
    signed: int
    machine_s: float


class Meter:
    """Reads processes of this machine by their ids, and the shim in the service if there is one."""

    def __init__(self, processes: Mapping[str, int], shim: Shim | None = None, sessions: int = 0) -> None:
        self._processes = {**processes, "generator": os.getpid()}
        self._shim, self._sessions = shim, sessions

    def add(self, name: str, pid: int) -> None:
        """Read one more process."""
        self._processes[name] = pid

    def read(self) -> Reading:
        """Read it now."""
        signing_ms, signed = 0.0, 0
        if self._shim is not None:
            counts = self._shim.counts()
            signing_ms = sum(counts[name].delay_sum_ms + counts[name].cpu_s * 1000 for name in _SIGNING)
            signed = counts["C_Sign"].calls
        cpu = {name: _cpu_s(pid) for name, pid in self._processes.items()}
        return Reading(time.perf_counter(), cpu, signing_ms, signed, _machine_s())

    def signed(self) -> int | None:
        """Give how many signatures the HSM has made; None where nobody counts them."""
        return None if self._shim is None else self._shim.counts()["C_Sign"].calls

    def used(self, before: Reading, after: Reading) -> dict[str, float]:
        """Give what was used between: cores of each, busy cores of the machine, and sessions by Little's law.

        The mean number of busy sessions is the rate of signatures times the time each takes one (L = lambda W).
        """
        took_s = after.at_s - before.at_s
        used = {f"{name}_cores": (after.cpu_s[name] - before.cpu_s[name]) / took_s for name in self._processes}
        used["machine_cores"] = (after.machine_s - before.machine_s) / took_s
        used["other_cores"] = max(0.0, used["machine_cores"] - sum(used[f"{name}_cores"] for name in self._processes))
        used["load_1min"] = os.getloadavg()[0]
        used |= {f"{name}_mb": _rss_mb(pid) for name, pid in self._processes.items()}
        if signed := after.signed - before.signed:
            used["hsm_ms"] = (after.signing_ms - before.signing_ms) / signed
            used["sessions_busy"] = signed / took_s * used["hsm_ms"] / 1000
            used["sessions"] = self._sessions
        return used


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES / 1e6


def _machine_s(read: Callable[[], str] = Path("/proc/stat").read_text) -> float:
    """Give the CPU time that the machine did not idle: proc(5), without idle and iowait."""
    numbers = [int(word) for word in read().partition("\n")[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / _TICKS_PER_S
