"""Finds where a ramp stops being followed, and which resource it was that ended."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

_FOLLOWED: Final = 0.95
_SLOWER: Final = 10.0
_FULL: Final = 0.85

Phase = Mapping[str, Any]


def saturated(step: Phase, first: Phase) -> bool:
    """Whether a step asked for too much: it did not keep up, refused, or took ten times as long as the first."""
    return bool(
        step["errors"]
        or step["not_started"]
        or step["rate"] < _FOLLOWED * step["offered_rate"]
        or step["p50_ms"] > _SLOWER * first["p50_ms"]
    )


def find_knee(steps: Sequence[Phase], most_lag_ms: float) -> dict[str, Any] | None:
    """Give the last step that was followed, the most that came out, and what was used up in the step after it."""
    if not steps:
        return None
    after = next((number for number, step in enumerate(steps) if saturated(step, steps[0])), None)
    most = max(step["rate"] for step in steps)
    held = steps[after - 1] if after else steps[-1]
    why = "not reached: every step was followed" if after is None else explain(steps[after], most_lag_ms)
    return {
        "found": after is not None,
        "rate": held["rate"] if after != 0 else 0.0,
        "most_rate": most,
        "p99_ms": held["p99_ms"],
        "resource": why,
        "step": steps[after if after is not None else -1]["phase"],
    }


def explain(step: Phase, most_lag_ms: float) -> str:
    """Name the resource that a saturated step used up, with its figures."""
    cores = os.cpu_count() or 1
    sessions, busy = step.get("sessions", 0), step.get("sessions_busy", 0.0)
    service, emulator = step.get("service_cores", 0.0), step.get("emulator_cores", 0.0)
    said = [
        (bool(sessions) and busy >= _FULL * sessions, f"HSM sessions: {busy:.1f} of {sessions:.0f} busy"),
        (emulator >= _FULL, f"queue: the local emulator used {emulator:.2f} cores, and has one interpreter"),
        (service >= _FULL, f"CPU of the service: {service:.2f} cores, and it has one interpreter"),
        (
            step["generator_lag_p99_ms"] > most_lag_ms or step.get("generator_cores", 0.0) >= _FULL,
            f"generator: {step.get('generator_cores', 0.0):.2f} cores, p99 {step['generator_lag_p99_ms']:g} ms late",
        ),
        (
            step.get("machine_cores", 0.0) >= _FULL * cores,
            f"CPU of the machine: {step.get('machine_cores', 0.0):.2f} of {cores} cores, all programs together",
        ),
    ]
    return "; ".join(text for full, text in said if full) or "unknown: nothing that is seen from here was used up"
