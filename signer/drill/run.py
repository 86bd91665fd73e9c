"""Runs the drill: one fault after another under load, and the proof at the end."""

import json
import time

from rich.console import Console
from rich.markup import escape

from signer.drill.evidence import ENTRANCES
from signer.drill.exercise import Exercise
from signer.drill.picture import draw
from signer.drill.play import Plan, Play, chosen, playable, playing, result_of, tell
from signer.drill.report import facts_of, print_rows, rows_of, seconds, shortcomings
from signer.drill.trial import Trial, recovered_s, run_trial
from softhsm.shim.client import ShimError


def run_drill(plan: Plan, console: Console) -> bool:
    """Run the drill, print and write its report; tells whether it held.

    So it does if nothing was lost, doubled, wrong or unaudited, every fault had its turn and was recovered from and,
    where none was left out by `plan.only`, fast enough.

    Raises `ConfigurationError`, and `KeyboardInterrupt` at SIGTERM.
    """
    exercises = chosen(plan)
    console.print(f"[dim]{len(exercises)} faults; load, service and AWS emulator start …[/]", highlight=False)
    with playing(plan) as play:
        trials: list[Trial] = []
        try:
            for exercise in playable(exercises, play.stage, console):
                trials.append(_run_one(exercise, play, console))  # noqa: PERF401 - those before an error count
        except ShimError as error:
            console.print(f"[bold red]the service is not there to go on with: {error}[/]", highlight=False)
        console.print("[dim]waiting for what is still out …[/]")
        play.load.drain()
    findings = play.findings()
    rows = rows_of(trials, play.load.evidence, findings)
    print_rows(rows, console)
    (plan.reports / "drill.json").write_text(json.dumps({"faults": facts_of(rows)}, indent=2) + "\n", encoding="utf-8")
    picture = draw(trials, play.load.evidence.events(), result_of(play, findings))
    (plan.reports / "drill.svg").write_text(picture, encoding="utf-8")
    tell(play, findings, console)
    console.print(f"[dim]{escape(str(plan.reports))}/drill.json, drill.svg[/]")
    missed = list(shortcomings(rows, len(exercises), whole=not plan.only))
    for each in missed:
        console.print(f"[bold red]{escape(each)}[/]", highlight=False)
    return findings.clean and not missed


def _run_one(exercise: Exercise, play: Play, console: Console) -> Trial:
    trial = run_trial(exercise, play.stage, play.load)
    events = play.load.evidence.events(trial.began_s)
    back = ", ".join(f"{name} {seconds(recovered_s(events, name, trial.ended_s))}" for name in ENTRANCES)
    clock = time.strftime("%H:%M:%S", time.localtime(trial.began_s))
    console.print(f"{clock}  {exercise.name:<32} noticed {seconds(trial.detected_s)}, back: {back}", highlight=False)
    return trial
