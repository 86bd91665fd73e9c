"""Schemathesis with all its checks over every endpoint of a real service, with each credential and with none.

Ends with status 1 on the first finding, and where fewer cases reached the service than are wanted, an endpoint was not
reached, a credential opened nothing, or a round was left out. The figures lie in .local/reports/schemathesis.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from loadtest.stopping import clean_up_at_sigterm
from tests.fuzz import tally
from tests.fuzz.callers import HSM_HOME, NAMES, Round, rounds
from tests.fuzz.echo import PIN_FILE
from tests.fuzz.leaks import leaks
from tests.fuzz.pages import with_pages
from tests.fuzz.tally import Tally

LEAST: Final = 10_000
"""Cases that a whole run has to come to."""
_CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")
_ROOT: Final = Path(__file__).parents[2]


def run(each: Round, directory: Path, examples: int) -> Tally:
    """Send about `examples` requests to each operation; ends the process with what was found wrong."""
    directory.mkdir(parents=True, exist_ok=True)
    noted = directory / "tally"
    noted.touch()
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIGURATION)]
    description = with_pages(_described(each))
    (directory / "openapi.json").write_text(json.dumps(description), encoding="utf-8")
    command += [
        "run",
        str(directory / "openapi.json"),
        "--url",
        each.url,
        "--checks",
        "all",
        "--max-examples",
        str(examples),
        *each.arguments,
    ]
    command += ["--generation-database", "none", "--report-json-path", str(directory / "report.json")]
    pin_file = each.directory.parent / HSM_HOME / "pin"
    environment = {**os.environ, tally.VARIABLE: str(noted), PIN_FILE: str(pin_file)}
    served, began_s = _served(each), time.monotonic()
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, env=environment)
    seconds = time.monotonic() - began_s
    found = json.loads((directory / "report.json").read_text(encoding="utf-8")) if not done.returncode else {}
    if not found.get("complete") or found["operations"]["tested"] < found["operations"]["total"]:
        sys.exit(f"{each.name}:\n{done.stdout}{done.stderr}")
    (answers, items), (operations, secured) = tally.read(noted), _operations(description)
    return Tally(each.name, answers, operations, secured, _served(each) - served, seconds, items)


def _described(each: Round) -> dict[str, Any]:
    """Give the service's own description."""
    with urllib.request.urlopen(f"{each.url}/openapi.json", context=each.context, timeout=20) as answer:  # noqa: S310
        document: dict[str, Any] = json.load(answer)
        return document


def _operations(document: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Name the operations of a description, and those that want credentials."""
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    open_to_all = document.get("security", [])
    secured = [name for name, operation in operations.items() if operation.get("security", open_to_all)]
    return list(operations), secured


def _served(each: Round) -> int:
    """Give how many requests the service has answered, by its own count."""
    with urllib.request.urlopen(f"{each.health_url}/metrics", timeout=20) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("signer_http_requests_total{"))


def run_all(names: Collection[str], examples: int) -> tuple[list[Tally], list[str]]:
    """Go through the rounds of these names; gives what the services let out by the way, too."""
    with TemporaryDirectory(prefix="schemathesis") as name, rounds(Path(name) / "services") as found:
        tallies = [_told(run(each, Path(name) / each.name, examples)) for each in found if each.name in names]
        return tallies, list(leaks(Path(name) / "services", found))


def _told(each: Tally) -> Tally:
    print(f"{each.name:12} {each.total:>7,} cases in {each.seconds:.0f} s", flush=True)  # noqa: T201
    return each


def _report(tallies: Sequence[Tally], faults: Sequence[str]) -> dict[str, Any]:
    cases = {each.name: {operation: each.of(operation) for operation in each.operations} for each in tallies}
    statuses = {
        each.name: {f"{operation} {status}": count for (operation, status), count in sorted(each.answers.items())}
        for each in tallies
    }
    totals = {
        each.name: {"cases": each.total, "served": each.served, "seconds": round(each.seconds, 1)} for each in tallies
    }
    total = sum(each.total for each in tallies)
    return {"cases": total, "rounds": totals, "by_operation": cases, "by_status": statuses, "faults": list(faults)}


def _print(tallies: Sequence[Tally]) -> None:
    operations = list(dict.fromkeys(operation for each in tallies for operation in each.operations))
    print("".join([f"\n{'':32}", *(f"{each.name:>12}" for each in tallies)]))  # noqa: T201
    for operation in operations:
        counts = (f"{each.of(operation):>12,}" if operation in each.operations else f"{'-':>12}" for each in tallies)
        print("".join([f"{operation:32}", *counts]))  # noqa: T201


def main() -> int:
    """Go through the rounds, and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=500, help="requests to each operation, about")
    arguments.add_argument("--rounds", nargs="*", default=list(NAMES), choices=NAMES, help="leave some out, to debug")
    arguments.add_argument("--reports", type=Path, default=Path(".local/reports"))
    options = arguments.parse_args()
    tallies, leaked = run_all(options.rounds, options.examples)
    faults = [*tally.shortcomings(tallies, NAMES, LEAST), *leaked]
    options.reports.mkdir(parents=True, exist_ok=True)
    report = json.dumps(_report(tallies, faults), indent=2)
    (options.reports / "schemathesis.json").write_text(report, encoding="utf-8")
    _print(tallies)
    print(f"{sum(each.total for each in tallies):,} cases", *(faults or ["nothing found"]), sep="\n")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    clean_up_at_sigterm()
    sys.exit(main())
