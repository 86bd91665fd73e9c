"""Prints and writes what was measured."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest.bench.cells import MOST_RATIO
from loadtest.bench.picture import draw, draw_sweeps
from loadtest.bench.targets import TARGETS, Target, verdicts

Row = dict[str, Any]

_COLUMNS: Final[dict[str, str | tuple[str, str]]] = {
    "rate": "rate",
    "limit": "limit_rate",
    "ratio": "ratio",
    "ratio of rounds": ("ratio_min", "ratio_max"),
    "CPU us": "service_cpu_us",
    "CPU us of rounds": ("service_cpu_us_min", "service_cpu_us_max"),
    "limit CPU us": "limit_cpu_us",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "p99.9 ms": "p999_ms",
    "RSS MB": "rss_mb",
}
"""Medians, and where a column has two figures, from where to where the rounds lay."""
_HEADS: Final = ("path", "module", *_COLUMNS)
_ABOVE: Final = (
    "* above the limit: the machine gave the service more than it gave the limit; read it as 1 "
    f"(beyond {MOST_RATIO:g} nothing is proven)"
)


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and its targets."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in (*_HEADS, "target"):
        table.add_column(name, justify="left" if name in ("path", "module", "target") else "right")
    for row in rows:
        if "rate" in row:
            table.add_row(row["path"], row["module"], *_figures(row), _target(row))
    console.print(table)
    if any(row.get("ratio", 0) > 1 for row in rows):
        console.print(_ABOVE, highlight=False)
    for target, value in verdicts(rows):
        said = "[red]not measured[/]" if value is None else f"{value:g} {_verdict(met=target.met_by(value))}"
        console.print(f"{target.path}, {target.module}: {target.figure} {target.text}: {said}", highlight=False)


def _figures(row: Row) -> list[str]:
    return [_cell(row, figures) for figures in _COLUMNS.values()]


def _cell(row: Row, figures: str | tuple[str, str]) -> str:
    if isinstance(figures, tuple):
        return " - ".join(f"{row[name]:g}" for name in figures)
    return f"{row[figures]:g}" + ("*" if figures == "ratio" and row[figures] > 1 else "")


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
    written = as_markdown([*report["paths"], *report["extra"]]) + _sweeps_as_markdown(report["sweeps"])
    (directory / "bench.md").write_text(written, encoding="utf-8")
    rows = report["paths"]
    held = [row for row in rows if row["module"] != "shim-replay"]
    plots = {
        "bench-ratio.svg": draw(held, "ratio", "Part of the module's own rate that the service reaches"),
        "bench-cpu.svg": draw(rows, "service_cpu_us", "CPU of the service for each signature, outside C_Sign (us)"),
    }
    plots |= {f"bench-{name.replace(' ', '-')}.svg": plot for name, plot in draw_sweeps(report["sweeps"])}
    for name, plot in plots.items():
        (directory / name).write_text(plot, encoding="utf-8")


def as_markdown(rows: Sequence[Row]) -> str:
    """Give the table and its targets as they stand in docs/performance.md."""
    measured = [[row["path"], row["module"], *_figures(row)] for row in rows if "rate" in row]
    judged = [
        [target.path, target.module, f"{target.figure} {target.text}", *_judged(target, value)]
        for target, value in verdicts(rows)
    ]
    return _table(_HEADS, measured) + "\n" + _table(("path", "module", "target", "measured", ""), judged)


def _sweeps_as_markdown(rows: Sequence[Row]) -> str:
    measured = [[row["sweep"], f"{row['value']:,}", row["path"], row["module"], *_figures(row)] for row in rows]
    return "\n" + _table(("grows", "to", *_HEADS), measured) if rows else ""


def _judged(target: Target, value: float | None) -> tuple[str, str]:
    return ("-", "not measured") if value is None else (f"{value:g}", "met" if target.met_by(value) else "missed")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
