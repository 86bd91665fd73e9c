"""Measures the service against its HSM module: `python -m loadtest.bench [--full]`.

Ends with status 1 if a path of the table is absent, or a figure could not be proven.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadtest.bench import machine
from loadtest.bench.cells import PATHS, Setup, measure, opened
from loadtest.bench.extras import memory, steady_rate
from loadtest.bench.report import print_rows, write
from loadtest.bench.sweeps import sweep_all
from loadtest.bench.targets import verdicts
from loadtest.proof import NotProvenError
from loadtest.stage import MODULES, open_stage
from loadtest.stopping import clean_up_at_sigterm

_SHORT: Final = (3, 3.0)
_FULL: Final = (7, 8.0)
_STEADY_S: Final = 20.0
_WIDTH: Final = 180
"""Of what goes to no terminal."""
_SIGNATURES: Final = 1_000_000


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more and longer rounds, and all sweeps: an hour")
    parser.add_argument("--paths", nargs="*", default=list(PATHS), choices=list(PATHS))
    parser.add_argument("--modules", nargs="*", default=list(MODULES), choices=list(MODULES))
    parser.add_argument("--rounds", type=int, help="of each path; their medians count")
    parser.add_argument("--seconds", type=float, help="of each round")
    parser.add_argument("--signatures", type=int, default=_SIGNATURES, help="after which memory is looked at; 0: none")
    parser.add_argument("--reports", type=Path, default=Path(".local/reports"))
    parser.add_argument("--directory", type=Path, default=Path(".local/bench"), help="to work in; it is emptied first")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    directory = arguments.directory
    shutil.rmtree(directory, ignore_errors=True)
    rounds, seconds = _FULL if arguments.full else _SHORT
    rounds, seconds = arguments.rounds or rounds, arguments.seconds or seconds
    report: dict[str, Any] = {"machine": machine.describe(), "rounds": rounds, "seconds": seconds}
    report |= {"paths": [], "absent": [], "details": [], "extra": [], "sweeps": []}
    try:
        for name in arguments.modules:
            _measure_module(name, arguments.paths, directory, (rounds, seconds), report, console)
        if "softhsm" in arguments.modules and "http-single" in arguments.paths:
            _measure_two_processes(directory, (rounds, seconds), report)
        if "shim-cloudhsm" in arguments.modules and "http-single" in arguments.paths:
            report["extra"].append(steady_rate(directory / "steady", _STEADY_S))
        if arguments.signatures:
            report["extra"].append(memory(directory / "memory", arguments.signatures))
        if arguments.full:
            report["sweeps"] = list(sweep_all(directory, min(rounds, _SHORT[0]), min(seconds, _SHORT[1])))
    except NotProvenError as error:
        console.print(f"[bold red]not proven: {error}[/]", highlight=False)
        return 1
    report["load_1min_at_end"] = round(os.getloadavg()[0], 2)
    rows = [*report["paths"], *report["extra"]]
    report["targets"] = [
        {"path": target.path, "module": target.module, "figure": target.figure, "target": target.text, "value": value,
         "met": value is not None and target.met_by(value)}
        for target, value in verdicts(rows)
    ]  # fmt: skip
    write(report, arguments.reports)
    print_rows(rows, console)
    for absent in report["absent"]:
        console.print(f"[bold red]{absent['path']}, {absent['module']}: absent: {absent['error']}[/]", highlight=False)
    console.print(f"[dim]{report['machine']}, load at the end {report['load_1min_at_end']}[/]", highlight=False)
    return 1 if report["absent"] else 0


def _measure_module(
    name: str, paths: list[str], directory: Path, effort: tuple[int, float], report: dict[str, Any], console: Console
) -> None:
    with open_stage(directory / name, MODULES[name]) as stage, opened(stage, "service", Setup()) as bench:
        if name == "softhsm":
            with opened(stage, "start", Setup(sessions=8)) as starting:
                cpu_s = starting.services[0].start_cpu_s
                report["extra"].append({"path": "start", "module": name, "start_cpu_s": cpu_s})
        for path in (PATHS[each] for each in paths):
            if not bench.serves(path):
                error = "the service has no batch endpoint"
                report["absent"].append({"path": path.name, "module": name, "error": error})
                continue
            figure = measure(bench, path, *effort)
            report["paths"].append(figure.row())
            report["details"].append(figure.detail())
            console.print(f"[dim]{path.name:<15}{name:<15}{figure.detail()['ratios']}[/]", highlight=False)
        console.print(f"[dim]{name}: {bench.check():,} signatures verified, in the ledger and in the audit log[/]")


def _measure_two_processes(directory: Path, effort: tuple[int, float], report: dict[str, Any]) -> None:
    setup = Setup(sessions=1, processes=2)
    with open_stage(directory / "two", MODULES["softhsm"]) as stage, opened(stage, "service", setup) as bench:
        figure = measure(bench, PATHS["http-single"], *effort)
        report["extra"].append(figure.row() | {"path": "http-single x2"})
        bench.check()


if __name__ == "__main__":
    clean_up_at_sigterm()
    sys.exit(main())
