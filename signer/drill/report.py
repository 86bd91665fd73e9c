"""What the drill found: rows, a table, medians against the goals."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from signer.drill.checker import Findings
from signer.drill.evidence import ENTRANCES, Evidence
from signer.drill.exercise import Kind
from signer.drill.trial import Trial, recovered_s

_GOALS_S: Final = {Kind.SESSION: 1.0, Kind.LOGIN: 1.0, Kind.REBUILD: 3.0}
_ZEROS: Final = ("lost", "conflicting", "wrong_released", "unaudited")

Row = dict[str, Any]


def rows_of(trials: Sequence[Trial], evidence: Evidence, findings: Findings) -> list[Row]:
    """Give one row for each fault and entrance; what happened between two faults belongs to the first of them."""
    bounds = [-inf, *(trial.began_s for trial in trials[1:]), inf]
    return [
        _row(trial, entrance, span, evidence, findings)
        for trial, span in zip(trials, pairwise(bounds), strict=True)
        for entrance in ENTRANCES
    ]


def _row(trial: Trial, entrance: str, span: tuple[float, float], evidence: Evidence, findings: Findings) -> Row:
    since_s, until_s = span
    events = [event for event in evidence.events(since_s) if event.entrance == entrance and event.at_s < until_s]
    sent = frozenset(
        sent.transaction_id
        for sent in evidence.sent.values()
        if sent.entrance == entrance and since_s <= sent.at_s < until_s
    )
    back_s = recovered_s(events, entrance, trial.ended_s)
    return {
        "name": trial.exercise.name,
        "kind": str(trial.exercise.kind),
        "silent": trial.exercise.silent,
        "entrance": entrance,
        "detected_s": None if trial.detected_s is None else round(trial.detected_s, 3),
        "recovered_s": None if back_s is None else round(back_s, 3),
        "failed": dict(Counter(event.code for event in events if event.code is not None).most_common()),
        **findings.counts(sent),
    }


def facts_of(rows: Sequence[Row]) -> list[Row]:
    """Give what drill.json holds of the rows: the rest is the catalogue's, nothing that was found."""
    return [{name: value for name, value in row.items() if name not in ("kind", "silent")} for row in rows]


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and how fast each kind of fault was recovered from."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("fault", "kind", "over", "detected", "recovered", "failed", *_ZEROS):
        table.add_column(column.replace("_", " "), justify="left" if column in ("fault", "kind", "failed") else "right")
    for row in rows:
        failed = " ".join(f"{code} {count}" for code, count in row["failed"].items())
        zeros = [f"[bold red]{row[name]}[/]" if row[name] else "0" for name in _ZEROS]
        times = [seconds(row["detected_s"]), seconds(row["recovered_s"])]
        table.add_row(row["name"], row["kind"], row["entrance"], *times, failed or "-", *zeros)
    console.print(table)
    for kind, goal_s, median_s in medians(rows):
        goal = "" if goal_s is None else f", goal {goal_s:.0f} s {'✓' if median_s < goal_s else '✗ missed'}"
        console.print(f"median recovery, {kind}: {seconds(median_s)}{goal}", highlight=False)


def medians(rows: Sequence[Row]) -> list[tuple[str, float | None, float]]:
    """Give each kind with its goal and its median recovery in seconds; what never came back counts as for ever."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        times[row["kind"]].append(inf if row["recovered_s"] is None else row["recovered_s"])
    return [(kind, _GOALS_S.get(Kind(kind)), median(found)) for kind, found in times.items()]


def shortcomings(rows: Sequence[Row], wanted: int, *, whole: bool) -> Iterator[str]:
    """Say what was not proven: faults that had no turn or no end, and what a `whole` drill must show besides.

    That is goals that were met, and faults that were noticed: one that struck nothing was not recovered from either.
    """
    had_their_turn = len({row["name"] for row in rows})
    if had_their_turn < wanted:
        yield f"cut short: {had_their_turn} of {wanted} faults had their turn"
    for row in rows:
        if row["recovered_s"] is None:
            yield f"not recovered from: {row['name']}, over {row['entrance']}"
    if whole:
        yield from (f"not noticed: {row['name']}" for row in rows if row["detected_s"] is None and not row["silent"])
        for kind, goal_s, median_s in medians(rows):
            if goal_s is not None and median_s >= goal_s:
                yield f"too slow: {kind}, {seconds(median_s)} where {goal_s:.0f} s are the goal"


def seconds(value: float | None) -> str:
    """Format a time for a table."""
    return "-" if value is None else f"{value:.2f} s"
