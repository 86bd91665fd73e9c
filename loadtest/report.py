"""Writes what a load test showed: HTML for people, which asks nobody for anything, and JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from loadtest.plots import Line, draw

Report = Mapping[str, Any]

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#1d2733}
h1{font-size:24px}h2{font-size:18px;margin-top:2em}table{border-collapse:collapse;width:100%;font-size:13px}
td,th{border-bottom:1px solid #dddddd;padding:4px 8px;text-align:right}td:first-child,th:first-child{text-align:left}
.verdict{padding:.8em 1em;border-radius:6px;color:white;font-weight:600}
.pass{background:#2f7d4f}.fail{background:#b3261e}
.note{color:#555555;font-size:13px}
"""
_COLUMNS: Final = {
    "phase": "phase",
    "seconds": "s",
    "offered_rate": "asked /s",
    "rate": "signed /s",
    "transactions": "signed",
    "errors": "errors",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p99.9_ms": "p99.9 ms",
    "max_ms": "max ms",
    "generator_lag_p99_ms": "generator late, p99 ms",
}
_USED: Final = {
    "phase": "phase",
    "service_cores": "service",
    "generator_cores": "generator",
    "emulator_cores": "queue",
    "machine_cores": "machine, all",
    "load_1min": "load 1 min",
    "hsm_ms": "ms in the HSM",
    "sessions_busy": "sessions busy",
    "sessions": "of",
}
_OPEN_LOOP: Final = (
    "<p class='note'>Arrivals come at their rate whatever the service does. Latency is counted from the moment a "
    "request was to be sent, so a stall counts for all who would have come meanwhile.</p>"
)
_LITTLE: Final = (
    "<h2>What was used</h2><p class='note'>CPU in cores. Busy sessions are the rate of signatures times the time each "
    "takes one (Little's law).</p>"
)


def write(report: Report, directory: Path) -> tuple[Path, Path]:
    """Write both; gives their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    name = f"loadtest-{report['target']}"
    page, figures = directory / f"{name}.html", directory / f"{name}.json"
    figures.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    page.write_text(html(report), encoding="utf-8")
    return page, figures


def html(report: Report) -> str:
    """Give the page."""
    phases = report["phases"]
    parts = [
        f"<h1>Load test: signing over {escape(report['target'].upper())}</h1>",
        _verdict(report),
        f"<p>{escape(_summary(report))}</p>",
        "<h2>What was asked, and what came</h2>",
        _table(phases, _COLUMNS),
        _OPEN_LOOP,
        *_timelines(report),
        _distribution(report),
        *_ramp(report),
        _LITTLE,
        _table(phases, _USED),
        f"<h2>Where</h2><p class='note'>{escape(json.dumps(report['machine']))}</p>",
    ]
    title = f"Load test, {escape(report['target'])}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return head + "\n".join(parts) + "</html>\n"


def _verdict(report: Report) -> str:
    if not report["failures"]:
        met = ", ".join(report["objectives"])
        return f'<p class="verdict pass">Passed: {escape(met)}</p>'
    items = "".join(f"<li>{escape(each)}</li>" for each in report["failures"])
    return f'<div class="verdict fail">Failed<ul>{items}</ul></div>'


def _summary(report: Report) -> str:
    compared = "compared one by one with ledger and audit log" if report["compared"] else "not compared with a ledger"
    each = f" Each queue message carries {report['size']} transactions." if report["size"] > 1 else ""
    return f"{report['verified']:,} signatures verified with the public key, {compared}.{each} {report['note']}"


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in columns.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row.get(name, '')))}</td>" for name in columns) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _timelines(report: Report) -> list[str]:
    drawn = []
    for name, series in report["series"].items():
        if name.startswith(("ramp-", "warm-up")):
            continue
        lines = [
            Line(key.removesuffix("_ms"), [(each["at_s"], each[key]) for each in series])
            for key in ("p50_ms", "p99_ms", "max_ms")
        ]
        drawn.append(draw(f"{name}: latency", "seconds after the start", "ms", lines))
        rate = Line("signed, by the second they were due in", [(each["at_s"], each["rate"]) for each in series])
        drawn.append(draw(f"{name}: rate", "seconds after the start", "transactions a second", [rate]))
    return drawn


def _distribution(report: Report) -> str:
    """Draw all judged phases over one another."""
    lines = [Line(name, [(at, ms) for at, ms in points]) for name, points in report["distributions"].items()]
    return draw("Latency by percentile", "percentile", "ms", lines) if lines else ""


def _ramp(report: Report) -> list[str]:
    steps = [phase for phase in report["phases"] if phase["phase"].startswith("ramp-")]
    knee = report["knee"]
    if not steps or knee is None:
        return []
    asked = Line("asked", [(step["offered_rate"], step["offered_rate"]) for step in steps], dashed=True)
    signed = Line("signed", [(step["offered_rate"], step["rate"]) for step in steps])
    late = [
        Line(f"p{which}", [(step["offered_rate"], step[f"p{which}_ms"]) for step in steps]) for which in ("50", "99")
    ]
    where = (
        f"Followed up to {knee['rate']:g} a second (p99 {knee['p99_ms']:g} ms); "
        f"at most {knee['most_rate']:g} came out. "
        f"What ended in {knee['step']}: {knee['resource']}."
    )
    axis = "transactions a second asked for"
    return [
        f"<h2>The knee</h2><p>{escape(where)}</p>",
        draw("Asked and signed", axis, "transactions a second", [signed, asked]),
        draw("Latency by rate", axis, "ms", late),
    ]
