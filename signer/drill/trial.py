"""Lets one fault happen under load, ends it, and waits until both entrances have come back."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from signer.drill.evidence import ENTRANCES, Event
from signer.drill.exercise import Exercise, Lasts
from signer.drill.load import Load
from signer.drill.signs import Signs
from signer.drill.stage import Stage

_POLL_S: Final = 0.025
_LONGEST_S: Final = 30.0
_RECOVERY_TIMEOUT_S: Final = 60.0
# Longer than a client or a batch that was turned away stays away: whatever still fails must have had its chance.
_QUIET_S: Final = 1.5


@dataclass(frozen=True, slots=True)
class Trial:
    """When a fault happened; Unix time."""

    exercise: Exercise
    began_s: float
    ended_s: float
    """When the module was sound again; where a person was needed, when that one had acted."""
    detected_s: float | None
    """From its beginning to the service's first sign of it; None if it never had to notice."""


def run_trial(exercise: Exercise, stage: Stage, load: Load) -> Trial:
    """Let the fault happen, and return when all is well again or patience is at its end."""
    signs = Signs(stage)
    began_s = time.time()
    faults = exercise.begin(stage)
    detected_s = hold(exercise, signs, began_s)
    for fault in faults:
        fault.end()
    ended_s = _end_of(exercise, began_s, stage)
    if exercise.act is not None:
        exercise.act(stage)
        ended_s = time.time()
    _wait_for_recovery(stage, load, ended_s)
    return Trial(exercise, began_s, ended_s, detected_s)


def recovered_s(events: Sequence[Event], entrance: str, ended_s: float) -> float | None:
    """How long after a fault's end came the first success after which nothing failed; None if there was none.

    `events` are in the order of time. Only what was asked for after the fault counts as a success.
    """
    after = [event for event in events if event.entrance == entrance and event.at_s >= ended_s]
    last_s = max((event.at_s for event in after if event.code is not None), default=ended_s)
    back = (event.at_s for event in after if event.code is None and event.at_s >= last_s and event.asked_s >= ended_s)
    return next((at_s - ended_s for at_s in back), None)


def _end_of(exercise: Exercise, began_s: float, stage: Stage) -> float:
    if exercise.lasts is Lasts.A_MOMENT:
        return began_s
    if exercise.lasts is Lasts.UNTIL_DEATH and stage.supervisor.ends:
        return stage.supervisor.ends[-1].at_s
    return time.time()


def hold(exercise: Exercise, signs: Signs, began_s: float) -> float | None:
    """Let the fault last as long as it should; gives how long after `began_s` the service showed a sign of it."""
    detected_s = None
    over = False
    while not over:
        # Judged before the last look, so that the very end of the process is seen as a sign of the fault, too.
        over = _is_over(exercise, signs, time.time() - began_s, detected_s)
        if detected_s is None and signs.seen():
            detected_s = time.time() - began_s
        if not over:
            time.sleep(_POLL_S)
    return detected_s


def _is_over(exercise: Exercise, signs: Signs, elapsed_s: float, detected_s: float | None) -> bool:
    if exercise.lasts is Lasts.UNTIL_NOTICED:
        done = detected_s is not None
    elif exercise.lasts is Lasts.UNTIL_DEATH:
        done = signs.died()
    else:
        done = True
    return elapsed_s >= _LONGEST_S or (done and elapsed_s >= exercise.hold_s)


def _wait_for_recovery(stage: Stage, load: Load, ended_s: float) -> None:
    give_up_s = time.time() + _RECOVERY_TIMEOUT_S
    while time.time() < give_up_s:
        load.look()
        events = load.evidence.events(ended_s)
        last_s = max((event.at_s for event in events if event.code is not None), default=ended_s)
        back = all(recovered_s(events, entrance, ended_s) is not None for entrance in ENTRANCES)
        if back and time.time() - last_s > _QUIET_S and stage.get("/readyz") is not None:
            return
        time.sleep(_POLL_S)
