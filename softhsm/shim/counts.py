"""What came through the shim, as tests ask for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Calls:
    """What is known of one function since the last reset, of all processes together."""

    calls: int = 0
    in_flight: int = 0
    hung: int = 0
    """Calls that hang now."""
    answered: int = 0
    """Calls that got their answer from `fail`; what the preset, a missing device and others refuse is not counted."""
    delayed: int = 0
    delay_sum_ms: float = 0.0
    cpu_s: float = 0.0
    """CPU time of the callers' threads inside the function, in the shim and in the real module; waiting is none."""
    max_in_flight: int = 0
    """The largest of any process, as are the delays below."""
    delay_min_ms: float = math.inf
    delay_max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of the module's use since the last reset, of all processes together."""

    functions: Mapping[str, Calls]
    sessions: int
    """Open now."""
    max_sessions: int
    wrong_pins: int
    busy_at_finalize: int
    """How many calls were in flight, hung ones included, when C_Finalize was called: should be none."""

    def __getitem__(self, function: str) -> Calls:
        return self.functions[function]


def together(replies: list[dict[str, Any]]) -> Counts:
    """Add up what each process answered."""
    whole = {name: sum(reply[name] for reply in replies) for name in replies[0] if name != "functions"}
    functions = [reply["functions"] for reply in replies]
    return Counts({name: _sum([each[name] for each in functions]) for name in functions[0]}, **whole)


def _sum(of_processes: list[dict[str, Any]]) -> Calls:
    whole = {name: sum(each[name] for each in of_processes) for name in of_processes[0]}
    whole["max_in_flight"] = max(each["max_in_flight"] for each in of_processes)
    whole["delay_max_ms"] = max(each["delay_max_ms"] for each in of_processes)
    whole["delay_min_ms"] = min((each["delay_min_ms"] for each in of_processes if each["delayed"]), default=math.inf)
    return Calls(**whole)
