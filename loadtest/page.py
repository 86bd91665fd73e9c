"""The report of a load test as one HTML page that needs nothing else: no script, no font, no network."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from loadtest.plots import Axes, Line, draw_lines, draw_stacks

_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;color:#22303f;max-width:1060px;margin:2em auto;padding:0 1em;background:#fff}
h1{font-size:1.5em;margin:0}h2{font-size:1.1em;margin:2em 0 .4em}p{margin:.3em 0}.dim{color:#66758a}
.verdict{padding:.7em 1em;border-radius:6px;color:#fff;font-size:1.15em;margin:1em 0}.good{background:#1e8449}
.bad{background:#b03a2e}.cards{display:flex;gap:.8em;flex-wrap:wrap}
.card{flex:1;min-width:130px;border:1px solid #dfe3e8;
border-radius:6px;padding:.6em .9em}.card b{display:block;font-size:1.5em}table{border-collapse:collapse;width:100%;
font-size:13px}th,td{text-align:right;padding:.25em .5em;border-bottom:1px solid #e6eaee}th:first-child,td:first-child
{text-align:left}svg{width:100%;height:auto;margin:.4em 0}li{margin:.2em 0}.met{color:#1e8449}.missed{color:#b03a2e}
"""
_BLUE: Final = "#2e6da4"
_ORANGE: Final = "#e67e22"
_GREY: Final = "#9aa7b4"
_GREEN: Final = "#27ae60"
_RED: Final = "#c0392b"
_COLUMNS: Final = {
    "phase": "phase",
    "offered_rate": "asked /s",
    "rate": "got /s",
    "transactions": "signed",
    "errors": "errors",
    "p50_ms": "p50 ms",
    "p90_ms": "p90",
    "p99_ms": "p99",
    "p99.9_ms": "p99.9",
    "max_ms": "max",
    "generator_lag_p99_ms": "late p99",
    "service_cores": "service cores",
    "queue_cores": "queue cores",
    "sessions_busy": "sessions busy",
    "hsm_ms": "HSM ms",
    "service_mb": "service MB",
}
_OVER_TIME: Final = (
    "Of what was due in each second, from the moment it was due: what waits behind a stall counts with its whole wait."
)
_PERCENTILES: Final = "To the right the tail: each mark is ten times rarer than the last."
_ENTRANCES: Final = {"http": "HTTP, one transaction a request", "sqs": "SQS, settlement batches"}

Document = Mapping[str, Any]


def render(document: Document) -> str:
    """Give the page for a report (`loadtest-report/1`)."""
    phases = document["phases"]
    parts = [
        *_summary(document),
        *_objectives(document),
        f"<h2>Latency over time</h2><p class=dim>{_OVER_TIME}</p>",
        _latency_over_time(document),
        "<h2>Throughput over time</h2>",
        _rate_over_time(phases),
        f"<h2>Latency by percentile</h2><p class=dim>{_PERCENTILES}</p>",
        _by_percentile(phases),
        *_knee(document),
        *_phases(phases),
        *_proof(document),
        *_how(document),
    ]
    title = f"Load test: {_ENTRANCES[document['target']]}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def _summary(document: Document) -> Iterator[str]:
    judged = [phase for phase in document["phases"] if phase["judged"]]
    verdict = "good" if document["passed"] else "bad"
    met = "every objective met" if judged else "a ramp alone, without objectives"
    said = f"Passed: {met}, every signature verified" if document["passed"] else "Not passed"
    yield f"<p class=dim>{escape(document['site'])}</p><div class='verdict {verdict}'>{said}</div>"
    failures = [*document["generator_fell_behind"], *document["missed"], *document["proof"]["problems"]]
    if failures:
        yield "<ul>" + "".join(f"<li class=missed>{escape(why)}</li>" for why in failures) + "</ul>"
    if judged:
        first = judged[0]
        cards = {
            "transactions a second": f"{first['rate']:,.1f}",
            f"seconds, {first['phase']}": f"{first['seconds']:g}",
            "median ms": f"{first['p50_ms']:.1f}",
            "99th percentile ms": f"{first['p99_ms']:.1f}",
            "errors": f"{sum(phase['errors'] for phase in judged)}",
            "signatures verified": f"{document['proof']['verified']:,}",
        }
        yield "<div class=cards>" + "".join(
            f"<div class=card><b>{value}</b>{escape(name)}</div>" for name, value in cards.items()
        ) + "</div>"  # fmt: skip


def _objectives(document: Document) -> Iterator[str]:
    if not any(phase["judged"] for phase in document["phases"]):
        return
    yield "<h2>Objectives</h2><table><tr><th>phase<th>figure<th>at most<th>was<th></tr>"
    for phase in document["phases"]:
        for objective in document["objectives"] if phase["judged"] else []:
            was, most = phase[objective["figure"]], objective["most"]
            kind = "met" if was <= most else "missed"
            yield (
                f"<tr><td>{escape(phase['phase'])}<td>{objective['figure'].replace('_', ' ')}<td>{most:g}<td>{was:g}"
                f"<td class={kind}>{kind}</tr>"
            )
    yield "</table>"


def _bands(phases: Sequence[Document]) -> list[tuple[float, float, str]]:
    return [(phase["began_s"], phase["began_s"] + phase["seconds"], phase["phase"]) for phase in phases]


def _over_time(phases: Sequence[Document], figure: str) -> list[tuple[float, float]]:
    return [(phase["began_s"] + second["at_s"], second[figure]) for phase in phases for second in phase["series"]]


def _latency_over_time(document: Document) -> str:
    phases = document["phases"]
    lines = [
        Line("max", _GREY, _over_time(phases, "max_ms")),
        Line("p99", _ORANGE, _over_time(phases, "p99_ms")),
        Line("p50", _BLUE, _over_time(phases, "p50_ms")),
    ]
    end_s = max((end_s for _, end_s, _ in _bands(phases)), default=0.0)
    lines += [
        Line("p99 at most", _RED, [(0.0, objective["most"]), (end_s, objective["most"])])
        for objective in document["objectives"]
        if objective["figure"] == "p99_ms"
    ]
    return draw_lines(Axes("seconds", "milliseconds (log)", log_y=True, bands=_bands(phases)), lines)


def _rate_over_time(phases: Sequence[Document]) -> str:
    asked = [(at_s, phase["rate_asked"]) for phase in phases
             for at_s in (phase["began_s"], phase["began_s"] + phase["seconds"])]  # fmt: skip
    lines = [Line("asked for", _GREY, asked), Line("signed", _GREEN, _over_time(phases, "rate"))]
    return draw_lines(Axes("seconds", "transactions a second", bands=_bands(phases)), lines)


def _by_percentile(phases: Sequence[Document]) -> str:
    colours = (_BLUE, _ORANGE, _GREEN, _RED)
    judged = [phase for phase in phases if phase["judged"]]
    lines = [
        Line(phase["phase"], colours[number % len(colours)],
             [(-math.log10(max(1e-4, 1 - at / 100)), ms) for at, ms in phase["distribution"]])
        for number, phase in enumerate(judged)
    ]  # fmt: skip
    ticks = [(0.0, "0 %"), (0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "max")]
    return draw_lines(Axes("of all answers", "milliseconds (log)", log_y=True, ticks=ticks), lines)


def _knee(document: Document) -> Iterator[str]:
    knee, ramp = document["knee"], [each for each in document["phases"] if each["phase"].startswith("ramp-")]
    if knee is None:
        return
    found = "is reached after" if knee["found"] else "was not reached:"
    yield (
        f"<h2>The knee</h2><p>It {found} <b>{knee['rate']:,.0f}/s</b>; at most {knee['most_rate']:,.0f}/s came out. "
        f"What was used up in {escape(knee['step'])}: <b>{escape(knee['resource'])}</b>.</p>"
    )
    mark = (knee["asked"], "knee") if knee["found"] else None
    came = [(each["offered_rate"], each["rate"]) for each in ramp]
    even = [(each["offered_rate"], each["offered_rate"]) for each in ramp]
    axes = Axes("transactions a second asked for", "transactions a second signed", mark=mark)
    yield draw_lines(axes, [Line("asked for", _GREY, even), Line("signed", _GREEN, came)])
    times = [(figure, colour, [(each["offered_rate"], each[f"{figure}_ms"]) for each in ramp])
             for figure, colour in (("p50", _BLUE), ("p99", _ORANGE))]  # fmt: skip
    axes = Axes("transactions a second asked for", "milliseconds (log)", log_y=True, mark=mark)
    yield draw_lines(axes, [Line(*each) for each in times])


def _phases(phases: Sequence[Document]) -> Iterator[str]:
    shown = {name: title for name, title in _COLUMNS.items() if any(name in phase for phase in phases)}
    yield "<h2>Phases</h2><table><tr>" + "".join(f"<th>{title}" for title in shown.values()) + "</tr>"
    for phase in phases:
        cells = [phase.get(name, "") for name in shown]
        texts = [f"{cell:,.1f}" if isinstance(cell, float) else escape(str(cell)) for cell in cells]
        yield "<tr>" + "".join(f"<td>{text}" for text in texts) + "</tr>"
    yield "</table>"
    kinds = {kind for phase in phases for kind in phase["error_kinds"]}
    if kinds:
        yield f"<p>Errors: {escape(', '.join(sorted(kinds)))}.</p>"
    who = (("service", _BLUE), ("queue", _ORANGE), ("generator", _GREEN), ("verifier", _RED), ("other", _GREY))
    stacks = [Line(name, colour, [(0.0, phase.get(f"{name}_cores", 0.0)) for phase in phases]) for name, colour in who]
    yield "<h2>Who used the CPU</h2>" + draw_stacks("cores", [phase["phase"] for phase in phases], stacks)


def _proof(document: Document) -> Iterator[str]:
    proof = document["proof"]
    compared = (
        "The audit chain is whole, and audit log and ledger hold these signatures, no more and no fewer."
        if proof["compared_with_ledger_and_audit"]
        else "Ledger and audit log were not within reach, and not compared."
    )
    if proof["made_by_hsm"] is not None:
        compared += f" The HSM made {proof['made_by_hsm']:,} meanwhile, counted at its module."
    if proof["problems"]:
        compared = "It is not proven: see above."
    yield (
        f"<h2>Proof</h2><p>{proof['verified']:,} signatures were verified with the public key, each over the digest "
        f"that the generator reckoned itself of what it sent. {compared}</p>"
    )


def _how(document: Document) -> Iterator[str]:
    yield "<h2>How</h2><p class=dim>Open loop: what is due starts when it is due. Machine: "
    yield escape(", ".join(f"{name} {value}" for name, value in document["machine"].items()))
    options = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in document["options"].items())
    yield f".</p><p class=dim>Options: {escape(options)}.</p>"
