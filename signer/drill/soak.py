"""The soak: a random fault every few seconds for a long time; nothing may be lost, and nothing may pile up."""

import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.markup import escape

from signer.drill.evidence import ENTRANCES, Evidence
from signer.drill.exercise import Exercise
from signer.drill.loops import Loop
from signer.drill.play import Plan, Play, chosen, playable, playing, tell
from signer.drill.samples import Sample, Sessions, Trend, sample, sessions_at_rest, trend
from softhsm.shim.client import ShimError

_FAULT_EVERY_S: Final = 5.0
_LONGEST_HOLD_S: Final = 2.5
_SAMPLE_EVERY_S: Final = 1.0
_PROGRESS_EVERY_S: Final = 60.0
_MIB: Final = 2**20
# So much, or such a share if that is more, may memory and descriptors have grown in the end.
_MEMORY_TOLERANCE: Final = (4 * _MIB, 0.03)
_DESCRIPTOR_TOLERANCE: Final = (4, 0.05)
_MOST_NOT_MADE: Final = 0.1
"""So many of the faults may find nothing to break, and one more: what was never broken proves nothing."""


class Soak:
    """One soak while it runs."""

    def __init__(self, play: Play, exercises: Sequence[Exercise], seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self.not_made: Counter[str] = Counter()
        """Those that found nothing to break, since the one before was not over."""
        self.samples: list[Sample] = []
        self._play = play
        self._exercises = exercises
        self._random = random.Random(seed)  # noqa: S311 - it hides nothing: the same seed gives the same soak

    def run(self, minutes: float, console: Console) -> None:
        """Let faults happen for so long, or until the process ends, which none of them is a reason for."""
        sampling = Loop("samples", self._sample)
        began_s = time.monotonic()
        told_s = 0.0
        while (elapsed_s := time.monotonic() - began_s) < minutes * 60 and not self._play.stage.supervisor.ends:
            self._one_fault()
            if elapsed_s - told_s >= _PROGRESS_EVERY_S:
                told_s = elapsed_s
                self._tell_progress(elapsed_s, console)
            turns = self.faults.total() + self.not_made.total()
            time.sleep(max(0.0, began_s + turns * _FAULT_EVERY_S - time.monotonic()))
        sampling.stop()

    def trends(self) -> dict[str, Trend]:
        """Say how memory and descriptors went."""
        return {
            "memory_bytes": trend([found.memory_bytes for found in self.samples], *_MEMORY_TOLERANCE),
            "descriptors": trend([found.descriptors for found in self.samples], *_DESCRIPTOR_TOLERANCE),
        }

    def _one_fault(self) -> None:
        exercise = self._random.choice(self._exercises)
        try:
            faults = exercise.begin(self._play.stage)
        except ShimError:
            # What the fault was to break is not back yet from the one before; the half of it that is made must end.
            self._play.stage.shim.reset()
            self.not_made[exercise.name] += 1
            return
        self.faults[exercise.name] += 1
        time.sleep(min(exercise.hold_s, _LONGEST_HOLD_S))
        for fault in faults:
            fault.end()
        self._play.load.look()

    def _sample(self) -> None:
        found = sample(self._play.stage.supervisor.pid)
        if found is not None:
            self.samples.append(found)
        time.sleep(_SAMPLE_EVERY_S)

    def _tell_progress(self, elapsed_s: float, console: Console) -> None:
        evidence, last = self._play.load.evidence, self.samples[-1]
        console.print(
            f"{elapsed_s / 60:5.1f} min  {self.faults.total()} faults, {len(evidence.sent)} sent, "
            f"{len(evidence.unsigned())} under way, {last.memory_bytes / _MIB:.1f} MiB, {last.descriptors} descriptors",
            highlight=False,
        )


def run_soak(plan: Plan, console: Console, minutes: float, seed: int | None) -> bool:
    """Run a soak, print and write its report; tells whether all of it held. Raises as `run_drill` does."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    console.print(f"[dim]{minutes:g} minutes, seed {seed}; load, service and AWS emulator start …[/]", highlight=False)
    with playing(plan) as play:
        healing = [exercise for exercise in playable(chosen(plan), play.stage, console) if exercise.heals]
        soak = Soak(play, healing, seed)
        soak.run(minutes, console)
        console.print("[dim]waiting for what is still out …[/]")
        play.load.drain()
        deaths = [end.status for end in play.stage.supervisor.ends]
        sessions = sessions_at_rest(play.stage)
    findings = play.findings()
    trends = soak.trends()
    leaked = None if sessions is None else sessions.leaked
    sound = findings.clean and not deaths and leaked == 0 and all(found.flat for found in trends.values())
    held = sound and enough(soak.faults.total(), soak.not_made.total())
    report = {
        "held": held,
        "seed": seed,
        "minutes": minutes,
        "faults": dict(soak.faults.most_common()),
        "not_made": dict(soak.not_made.most_common()),
        "sent": len(play.load.evidence.sent),
        "failed": _failures(play.load.evidence),
        **findings.counts(),
        "audit_problem": findings.audit_problem,
        "deaths": deaths,
        **{name: {**asdict(found), "flat": found.flat} for name, found in trends.items()},
        "sessions": None if sessions is None else {**asdict(sessions), "leaked": leaked},
    }
    (plan.reports / "soak.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tell(play, findings, console)
    _tell_rest(trends, sessions, deaths, console)
    console.print(f"[bold {'green]held' if held else 'red]broken'}[/]  [dim]{escape(str(plan.reports))}/soak.json[/]")
    return held


def enough(made: int, not_made: int) -> bool:
    """Tell whether nearly every fault that had its turn was made."""
    return made > not_made and not_made <= 1 + _MOST_NOT_MADE * (made + not_made)


def _failures(evidence: Evidence) -> dict[str, dict[str, int]]:
    failed = {entrance: Counter[str]() for entrance in ENTRANCES}
    for event in evidence.events():
        if event.code is not None:
            failed[event.entrance][event.code] += 1
    return {entrance: dict(codes.most_common()) for entrance, codes in failed.items()}


def _tell_rest(trends: dict[str, Trend], sessions: Sessions | None, deaths: Sequence[int], console: Console) -> None:
    for name, found in trends.items():
        unit, size = ("MiB", _MIB) if name == "memory_bytes" else ("", 1)
        console.print(
            f"{'flat' if found.flat else 'GREW':<6}{name}: {found.early / size:.1f} {unit} in the second fifth, "
            f"{found.late / size:.1f} in the last; {found.tolerance / size:.1f} more would be too much",
            highlight=False,
        )
    console.print(f"sessions at rest: {sessions}", highlight=False)
    console.print(f"unexpected ends of the process: {list(deaths) or 'none'}", highlight=False)
