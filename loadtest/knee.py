"""Finds where a ramp stops being followed, and which resource it was that ended."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_FOLLOWED: Final = 0.93
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
    held = steps[-1] if after is None else steps[max(0, after - 1)]
    beyond = None if after is None else steps[after]
    return {
        "found": after is not None,
        "rate": 0.0 if after == 0 else held["rate"],
        "asked": 0.0 if after == 0 else held["offered_rate"],
        "most_rate": max(step["rate"] for step in steps),
        "p99_ms": held["p99_ms"],
        "step": (beyond or held)["phase"],
        "resource": explain(beyond, most_lag_ms) if beyond else "nothing: every step was followed",
    }


def explain(step: Phase, most_lag_ms: float) -> str:
    """Name the resources that a saturated step used up, with their figures."""
    return "; ".join(_used_up(step, most_lag_ms)) or "unknown: nothing that is seen from here was used up"


def _used_up(step: Phase, most_lag_ms: float) -> Iterator[str]:
    cores = os.cpu_count() or 1
    service, queue, generator, other, machine = (
        step.get(f"{name}_cores", 0.0) for name in ("service", "queue", "generator", "other", "machine")
    )
    sessions, busy = step.get("sessions", 0), step.get("sessions_busy", 0.0)
    if sessions and busy >= _FULL * sessions:
        yield f"HSM sessions: {busy:.1f} of {sessions:.0f} busy, {step['hsm_ms']:.1f} ms a signature"
    if queue >= _FULL:
        yield f"queue: the local emulator used {queue:.2f} cores, and has one interpreter"
    if service >= _FULL:
        yield f"CPU of the service: {service:.2f} cores, and it has one interpreter"
    if generator >= _FULL or step["generator_lag_p99_ms"] > most_lag_ms:
        yield f"generator: {generator:.2f} cores, 99 % of arrivals at most {step['generator_lag_p99_ms']:g} ms late"
    if machine >= _FULL * cores:
        yield (
            f"CPU of the machine: {machine:.2f} of {cores} cores (service {service:.2f}, generator {generator:.2f}, "
            f"verifier {step.get('verifier_cores', 0.0):.2f}, queue {queue:.2f}, others {other:.2f})"
        )
