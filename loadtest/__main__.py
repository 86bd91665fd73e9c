"""The acceptance test: `python -m loadtest --target http|sqs --rate 200 --duration 60`."""

import asyncio
import os
import random
import sys
from argparse import Namespace
from contextlib import nullcontext
from typing import Any, Final
from uuid import uuid4

from rich.console import Console

from loadtest.bench import machine
from loadtest.knee import find_knee
from loadtest.messages import Book
from loadtest.objectives import failures, parse_objectives
from loadtest.open_http import HttpDriver
from loadtest.open_sqs import SqsDriver
from loadtest.openloop import run
from loadtest.options import parser, shape
from loadtest.places import Place, deployed, local
from loadtest.progress import Progress
from loadtest.report import write
from loadtest.schedule import plan
from loadtest.tally import Tally
from loadtest.verifier import Verifier

_PAGES: Final = 5000
_OBJECTIVES: Final = {"http": "p99=100ms,errors=0", "sqs": "p99=1s,errors=0"}


def main() -> int:
    """Load, prove, report; gives the exit status."""
    arguments = parser().parse_args()
    arguments.objective = arguments.objective or parse_objectives(_OBJECTIVES[arguments.target])
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        runs_already = arguments.url or arguments.inbound_url
        where = nullcontext(deployed(arguments)) if runs_already else local(arguments.sessions)
    except ValueError as error:
        console.print(f"[bold red]{error}[/]")
        return 2
    began = machine.describe()
    with where as place:
        report = _load(place, arguments, console) | {"machine": began | {"load_1min_at_end": os.getloadavg()[0]}}
    page, _ = write(report, arguments.reports)
    _print(report, console)
    console.print(f"report: {page}")
    return 1 if report["failures"] else 0


def _load(place: Place, arguments: Namespace, console: Console) -> dict[str, Any]:
    verifier = Verifier(place.public_key)
    try:
        driver = _driver(place, arguments, verifier)
        tallies = asyncio.run(_run(driver, place, arguments, console))
        audits, ledgers = place.end()
        verified, problems = verifier.result(audits, ledgers)
    finally:
        verifier.close()
    if isinstance(driver, SqsDriver) and driver.stray:
        problems.append(f"{driver.stray} batches came out that were not waited for, or were not whole")
    return _report(tallies, arguments, problems) | {
        "note": place.note, "size": driver.size, "verified": verified,
        "compared": bool(audits and ledgers) and not problems,
    }  # fmt: skip


def _driver(place: Place, arguments: Namespace, verifier: Verifier) -> HttpDriver | SqsDriver:
    book, prefix = Book(arguments.message_bytes, _PAGES), f"LOAD-{uuid4().hex[:12]}"
    if arguments.target == "http" and place.http is not None:
        return HttpDriver(place.http, book, verifier, prefix)
    if place.sqs is None:
        raise ValueError(arguments.target)
    return SqsDriver(place.sqs, place.queues, book, verifier, prefix, arguments.batch)


async def _run(driver: HttpDriver | SqsDriver, place: Place, arguments: Namespace, console: Console) -> list[Tally]:
    chance = random.Random(arguments.seed) if arguments.poisson else None  # noqa: S311 - arrivals, not secrets
    with Progress(console) as progress:
        async with driver:
            return await run(driver, plan(shape(arguments)), place.meter, progress.show, chance)


def _report(tallies: list[Tally], arguments: Namespace, problems: list[str]) -> dict[str, Any]:
    phases = [tally.figures() for tally in tallies]
    steps = [phase for phase in phases if phase["phase"].startswith("ramp-")]
    judged = [tally for tally in tallies if tally.phase.judged]
    return {
        "target": arguments.target,
        "objectives": [each.text for each in arguments.objective] if judged else ["no phase was judged, a ramp only"],
        "failures": [*problems, *failures(phases, arguments.objective, arguments.most_lag_ms)],
        "phases": phases,
        "knee": find_knee(steps, arguments.most_lag_ms),
        "series": {tally.phase.name: tally.series() for tally in tallies},
        "distributions": {tally.phase.name: tally.distribution() for tally in judged},
    }


def _print(report: dict[str, Any], console: Console) -> None:
    for phase in report["phases"]:
        console.print(
            f"{phase['phase']:<10}{phase['offered_rate']:>8.1f}/s asked{phase['rate']:>9.1f}/s signed"
            f"{phase['errors']:>6} errors  p50 {phase['p50_ms']:.1f}  p99 {phase['p99_ms']:.1f}  "
            f"p99.9 {phase['p99.9_ms']:.1f}  max {phase['max_ms']:.1f} ms"
        )
    if report["knee"]:
        console.print(f"knee: {report['knee']['rate']:g}/s; {report['knee']['resource']}")
    compared = ", each of them in ledger and audit log" if report["compared"] else ""
    console.print(f"{report['verified']:,} signatures verified{compared}")
    for each in report["failures"]:
        console.print(f"[bold red]failed: {each}[/]", markup=True)
    if not report["failures"]:
        console.print(f"[bold green]passed: {', '.join(report['objectives'])}[/]")


if __name__ == "__main__":
    sys.exit(main())
