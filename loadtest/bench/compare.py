"""Measures two revisions side by side, in turns: `python -m loadtest.bench.compare REV`.

The other revision is unpacked and set up below `.local/compare`; both run over one token, one emulator and one
module, are loaded one after the other in each round, and everything that either of them signed is proven.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from loadtest.bench.cells import PATHS, Bench, Round, Setup, opened
from loadtest.proof import NotProvenError
from loadtest.stage import MODULES, open_stage
from loadtest.stopping import clean_up_at_sigterm

_HOME: Final = Path(".local/compare")
# Python would put this directory first otherwise, and both would run what is here.
_OTHER: Final = Setup(environment={"PYTHONSAFEPATH": "1"})


def main() -> int:
    """Measure both, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="what to compare this tree with: a commit, a branch, a tag")
    parser.add_argument("--paths", nargs="*", default=["sqs-500", "http-single"], choices=list(PATHS))
    parser.add_argument("--module", default="shim-replay", choices=list(MODULES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    python = _set_up(arguments.revision)
    directory = _HOME / "run"
    shutil.rmtree(directory, ignore_errors=True)
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("path", "revision", "rate", "CPU us", "of each round"):
        table.add_column(name)
    with (
        open_stage(directory, MODULES[arguments.module]) as stage,
        opened(stage, "other", _OTHER, str(python)) as other,
        opened(stage, "here", Setup()) as here,
    ):
        benches = {arguments.revision: other, "this tree": here}
        try:
            for path in arguments.paths:
                turns = _alternate(list(benches.values()), path, arguments.rounds, arguments.seconds)
                for name, rounds in zip(benches, turns, strict=True):
                    table.add_row(path, name, *_figures(rounds))
            signatures = sum(bench.check() for bench in benches.values())
        except NotProvenError as error:
            console.print(f"[bold red]not proven: {error}[/]", highlight=False)
            return 1
    console.print(table)
    console.print(f"[dim]{signatures:,} signatures verified, in the ledgers and in the audit logs[/]")
    return 0


def _set_up(revision: str) -> Path:
    """Unpack a revision and give its interpreter."""
    resolve = ["git", "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}"]
    commit = subprocess.run(resolve, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - git
    tree = (_HOME / commit).resolve()
    if not tree.exists():
        tree.mkdir(parents=True)
        content = tree.with_suffix(".tar")
        subprocess.run(["git", "archive", "--output", str(content), commit], check=True)  # noqa: S603, S607
        with tarfile.open(content) as files:
            files.extractall(tree, filter="data")
        content.unlink()
    subprocess.run(["make", "--no-print-directory", "-C", str(tree), ".local/venv/.ready"], check=True)  # noqa: S603, S607
    return tree / ".local/venv/bin/python"


def _alternate(benches: list[Bench], name: str, rounds: int, seconds: float) -> list[list[Round]]:
    path = PATHS[name]
    loads = [bench.load(path) for bench in benches]
    limit = benches[0].limit(1.0)
    turns: list[list[Round]] = [[] for _ in benches]
    for number in range(rounds):
        # Who comes first changes: whatever grows from round to round hits both alike.
        order = range(len(benches)) if number % 2 == 0 else reversed(range(len(benches)))
        for index in order:
            turn, limit = benches[index].turn(loads[index], path, seconds, limit, 1.0)
            turns[index].append(turn)
    return turns


def _figures(rounds: list[Round]) -> tuple[str, str, str]:
    each = [measured.cpu_us for measured in rounds]
    rate = median(measured.run.rate for measured in rounds)
    return f"{rate:.0f}", f"{median(each):.1f}", ", ".join(f"{cpu_us:.0f}" for cpu_us in each)


if __name__ == "__main__":
    clean_up_at_sigterm()
    sys.exit(main())
