"""Prints and writes what was measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest.bench.picture import draw
from loadtest.bench.targets import TARGETS, Target, verdicts

Row = dict[str, Any]

_FIGURES: Final = ("rate", "limit_rate", "ratio", "service_cpu_us", "p50_ms", "p99_ms", "rss_mb")


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and its targets."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("path", "module", "rate", "limit", "ratio", "CPU us", "p50 ms", "p99 ms", "RSS MB", "target"):
        table.add_column(name, justify="left" if name in ("path", "module", "target") else "right")
    for row in rows:
        if "rate" in row:
            figures = [f"{row[name]:g}" for name in _FIGURES]
            table.add_row(row["path"], row["module"], *figures, _target(row))
    console.print(table)
    for target, value in verdicts(rows):
        said = "[red]not measured[/]" if value is None else f"{value:g} {_verdict(met=target.met_by(value))}"
        console.print(f"{target.path}, {target.module}: {target.figure} {target.text}: {said}", highlight=False)


def _target(row: Row) -> str:
    return " ".join(
        f"{target.figure} {target.text} {_verdict(met=target.met_by(row[target.figure]))}"
        for target in TARGETS
        if (target.path, target.module) == (row["path"], row["module"])
    )


def _verdict(*, met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"


def write(report: dict[str, Any], directory: Path) -> None:
    """Write bench.json, its tables for docs/performance.md, and the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (directory / "bench.md").write_text(as_markdown([*report["paths"], *report["extra"]]), encoding="utf-8")
    rows = report["paths"]
    held = [row for row in rows if row["module"] != "shim-replay"]
    plots = {
        "bench-ratio.svg": draw(held, "ratio", "Part of the module's own rate that the service reaches"),
        "bench-cpu.svg": draw(rows, "service_cpu_us", "CPU of the service for each signature, outside C_Sign (us)"),
    }
    for name, plot in plots.items():
        (directory / name).write_text(plot, encoding="utf-8")


def as_markdown(rows: Sequence[Row]) -> str:
    """Give the table and its targets as they stand in docs/performance.md."""
    measured = [[row["path"], row["module"], *(f"{row[name]:g}" for name in _FIGURES)] for row in rows if "rate" in row]
    judged = [
        [target.path, target.module, f"{target.figure} {target.text}", *_judged(target, value)]
        for target, value in verdicts(rows)
    ]
    heads = ("path", "module", "rate", "limit", "ratio", "CPU us", "p50 ms", "p99 ms", "RSS MB")
    return _table(heads, measured) + "\n" + _table(("path", "module", "target", "measured", ""), judged)


def _judged(target: Target, value: float | None) -> tuple[str, str]:
    return ("-", "not measured") if value is None else (f"{value:g}", "met" if target.met_by(value) else "missed")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
