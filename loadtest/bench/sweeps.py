"""How the figures grow: with sessions, batch size, message size, rows of the ledger, processes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtest.bench.cells import PATHS, Bench, Setup, measure, opened
from loadtest.bench.cells import Path as ThePath
from loadtest.ledger_rows import fill
from loadtest.stage import MODULES, Stage, open_stage


@dataclass(frozen=True, slots=True)
class Sweep:
    """One quantity, several values of it, everything else unchanged."""

    name: str
    path: ThePath
    module: str
    values: tuple[int, ...]
    setup: Callable[[int], Setup]
    path_for: Callable[[ThePath, int], ThePath] = lambda path, _: path


MESSAGE_BYTES: Final = (200, 1000, 4000, 16_000, 64_000)
LARGE: Final = ThePath("sqs-10", "sqs", 10, 32)
"""Ten of the largest, and their signatures, go into one queue message, which holds 1 MiB; none of it goes to S3."""
SWEEPS: Final = (
    Sweep("sessions", PATHS["sqs-500"], "shim-cloudhsm", (1, 4, 16, 32, 64), lambda n: Setup(sessions=n)),
    Sweep("sessions", PATHS["http-single"], "shim-cloudhsm", (1, 4, 16, 32, 64), lambda n: Setup(sessions=n)),
    Sweep(
        "batch size", PATHS["sqs-500"], "shim-replay", (1, 5, 25, 100, 500, 1000), lambda _: Setup(),
        lambda path, n: replace(path, name=f"sqs-{n}", batch=n, under_way=max(4, min(64, 4000 // n))),
    ),
    Sweep("message bytes", LARGE, "shim-replay", MESSAGE_BYTES, lambda n: Setup(message_bytes=n)),
    Sweep("message bytes", PATHS["http-single"], "shim-replay", MESSAGE_BYTES, lambda n: Setup(message_bytes=n)),
    Sweep("processes", PATHS["http-single"], "softhsm", (1, 2), lambda n: Setup(processes=n)),
    Sweep("processes", PATHS["sqs-500"], "softhsm", (1, 2), lambda n: Setup(processes=n)),
)  # fmt: skip
LEDGER_ROWS: Final = (0, 100_000, 1_000_000)


def sweep_all(directory: Path, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Measure every value of every sweep."""
    for number, sweep in enumerate(SWEEPS):
        with open_stage(directory / f"sweep-{number}", MODULES[sweep.module]) as stage:
            for value in sweep.values:
                with opened(stage, f"v{value}", sweep.setup(value)) as bench:
                    path = sweep.path_for(sweep.path, value)
                    yield _row(sweep.name, value, bench, path, rounds, seconds)
                    bench.check()
    with open_stage(directory / "sweep-rows", MODULES["shim-replay"]) as stage:
        for rows in LEDGER_ROWS:
            yield _over_rows(stage, rows, rounds, seconds)


def _over_rows(stage: Stage, rows: int, rounds: int, seconds: float) -> dict[str, Any]:
    setup = Setup()
    if rows:
        fill(stage.directory / f"rows-{rows}-0" / "ledger.sqlite3", rows)
        # Beside a ledger that has rows, an audit log that has none looks lost.
        setup = Setup(environment={"SIGNER_AUDIT__ACCEPT_NEW": "true"})
    with opened(stage, f"rows-{rows}", setup) as bench:
        row = _row("ledger rows", rows, bench, PATHS["sqs-500"], rounds, seconds)
        bench.check()
        return row


def _row(name: str, value: int, bench: Bench, path: ThePath, rounds: int, seconds: float) -> dict[str, Any]:
    return {"sweep": name, "value": value, **measure(bench, path, rounds, seconds).row()}
