"""What the benchmark says of what it measured: medians, targets, tables and plots."""

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from loadtest.bench.cells import Figure, Round
from loadtest.bench.extras import MANY, STEADY, judged
from loadtest.bench.report import as_markdown, print_rows, write
from loadtest.bench.sweeps import LARGE, SWEEPS
from loadtest.bench.targets import TARGETS, verdicts
from loadtest.closed import Run
from loadtest.messages import Book, batch_body
from loadtest.proof import NotProvenError
from loadtest.schedule import Phase
from loadtest.tally import Tally
from loadtest.verifier import Verdict
from signer.settings import SqsSettings

SVG = "{http://www.w3.org/2000/svg}"
SPECIFIED = {"path", "module", "rate", "limit_rate", "ratio", "service_cpu_us", "p50_ms", "p99_ms", "rss_mb"}
"""What every row of bench.json has."""


def figure(path: str = "sqs-500", module: str = "softhsm", rates: tuple[float, ...] = (900, 1000, 950)) -> Figure:
    """A path that was measured in as many rounds, over a module whose limit is 1,000 a second."""
    rounds = [
        Round(Run(round(rate) * 2, 2.0, [1.0, 2.0, 3.0]), cpu_us=rate / 10, limit=1000.0, limit_cpu_us=507.04, load=0.5)
        for rate in rates
    ]
    return Figure(path, module, rounds, 99.96)


def printed(rows: list[dict[str, Any]]) -> str:
    """What is printed of them."""
    text = io.StringIO()
    print_rows(rows, Console(file=text, width=200))
    return text.getvalue()


def test_a_row_holds_medians() -> None:
    """Of the rounds; latencies are those of all of them."""
    row = figure().row()
    assert row.keys() >= SPECIFIED
    assert (row["rate"], row["ratio"], row["service_cpu_us"], row["rss_mb"]) == (950.0, 0.95, 95.0, 100.0)
    assert (row["p50_ms"], row["p99_ms"], row["p999_ms"]) == (2.0, 3.0, 3.0)
    assert figure().detail()["ratios"] == [0.9, 1.0, 0.95]


def test_a_row_holds_the_spread_and_what_signing_costs_in_c() -> None:
    """From the least round to the most; the CPU of C_Sign is the limit's own. The table shows both."""
    row = figure().row()
    assert (row["ratio_min"], row["ratio_max"]) == (0.9, 1.0)
    assert (row["service_cpu_us_min"], row["service_cpu_us_max"]) == (90.0, 100.0)
    assert row["limit_cpu_us"] == 507.0
    cells = ["0.95", "0.9 - 1", "95", "90 - 100", "507"]
    assert " | ".join(cells) in as_markdown([row])
    assert cells == [cell.strip() for cell in printed([row]).split("\n")[1].split("  ") if cell.strip() in cells]


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (figure(rates=(919,)).row(), False),
        (figure(rates=(920,)).row(), True),
        (figure(module="shim-replay", rates=(600,)).row(), True),
        (figure(module="shim-replay", rates=(610,)).row(), False),
        ({"path": "start", "module": "softhsm", "start_cpu_s": 2.01}, False),
        ({"path": MANY, "module": "shim-replay", "rss_mb": 150.0, "growth_mb": 5.1}, True),
        ({"path": STEADY, "module": "shim-cloudhsm", "p50_beyond_ms": 3.1, "p99_beyond_ms": 10.0}, False),
    ],
)
def test_a_target_is_met_or_missed(row: dict[str, Any], met: bool) -> None:  # noqa: FBT001 - pytest's way
    """The first target of the path; all others were not measured, and are said not to be."""
    found = [(target, value) for target, value in verdicts([row]) if value is not None]
    target, value = found[0]
    assert target.met_by(value) is met
    assert len(found) == len([each for each in TARGETS if (each.path, each.module) == (row["path"], row["module"])])
    text = printed([row])
    assert text.count("not measured") == len(TARGETS) - len(found)
    assert ("met" if met else "missed") in text
    assert ("met" if met else "missed") in as_markdown([row])


def test_more_than_the_limit_is_marked() -> None:
    """It cannot be, and is said to be the machine's doing."""
    assert "1.2*" in printed([figure(rates=(1200,)).row()])
    assert "above the limit" in printed([figure(rates=(1200,)).row()])
    assert "*" not in printed([figure(rates=(1000,)).row()])


def test_much_more_than_the_limit_is_no_figure() -> None:
    """The median counts: one round in which the machine had other work while the limit was measured does no harm."""
    figure(rates=(1250, 1000, 1900)).check()
    with pytest.raises(NotProvenError, match=r"sqs-500, softhsm: 1\.26 of the limit"):
        figure(rates=(1260, 1000, 1900)).check()


@pytest.mark.parametrize(
    ("late_ms", "due", "answered", "problems", "said"),
    [
        (60, 1, True, [], "steady: the generator fell behind"),
        (10, 2, True, [], "1 not started"),
        (10, 1, False, [], "steady: errors was 1"),
        (10, 1, True, ["the audit log is not whole"], "not whole"),
    ],
)
def test_a_latency_counts_as_in_the_load_test(
    late_ms: float,
    due: int,
    answered: bool,  # noqa: FBT001 - pytest's way
    problems: list[str],
    said: str,
) -> None:
    """Everything due was started in time, and answered, and is proven; else the latency is not the service's."""
    tally = Tally(Phase("steady", 1.0, 200.0, judged=True), 1, lambda: 1.0)
    tally.due = due
    tally.start(1.0 - late_ms / 1000, 1.0)
    if answered:
        tally.finish(1.0)
    else:
        tally.fail("HTTP 503")
    with pytest.raises(NotProvenError, match=said):
        judged(tally.figures(), Verdict(1, compared=True, problems=problems))


def test_the_latency_of_a_generator_in_time_counts() -> None:
    """Ten milliseconds are in time."""
    tally = Tally(Phase("steady", 1.0, 200.0, judged=True), 1, lambda: 1.0)
    tally.due = 1
    tally.start(0.99, 1.0)
    tally.finish(0.99)
    assert judged(tally.figures(), Verdict(1, compared=True, problems=[]))["p99_ms"] == pytest.approx(10, abs=0.1)


def test_messages_are_swept_to_64_kb_on_both_entrances() -> None:
    """The largest batch comes out as one queue message, which may have 1 MiB: nothing of it lies in S3."""
    swept = [sweep for sweep in SWEEPS if sweep.name == "message bytes"]
    assert {sweep.path.entrance for sweep in swept} == {"http", "sqs"}
    assert all((sweep.values[0], sweep.values[-1]) == (200, 64_000) for sweep in swept)
    book, signature_bytes = Book(64_000, LARGE.batch), 1000
    body = batch_body("B", [book.take("T") for _ in range(LARGE.batch)])
    assert len(body) + LARGE.batch * signature_bytes < SqsSettings.model_fields["max_message_bytes"].default


def test_the_reports_are_written(tmp_path: Path) -> None:
    """Tables, a bar for each path, and a line for each path of a sweep."""
    swept = [
        {"sweep": "sessions", "value": value, **figure(path, "shim-cloudhsm", (rate,)).row()}
        for path in ("sqs-500", "http-single")
        for value, rate in ((1, 100), (4, 400), (64, 800))
    ]
    rows = [figure(module=module).row() for module in ("softhsm", "shim-cloudhsm", "shim-replay")]
    write({"paths": rows, "extra": [], "sweeps": swept}, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text())["paths"] == rows
    markdown = (tmp_path / "bench.md").read_text()
    assert "| sqs-500 | softhsm | 950 | 1000 | 0.95 |" in markdown
    assert "| sessions | 64 | http-single | shim-cloudhsm | 800 |" in markdown
    ratios = ET.fromstring((tmp_path / "bench-ratio.svg").read_text())  # noqa: S314 - our own
    # The ratio over a module that answers from memory says nothing.
    assert len(ratios.findall(f"{SVG}rect")) == 1 + 2
    sessions = ET.fromstring((tmp_path / "bench-sessions.svg").read_text())  # noqa: S314
    assert [len((line.get("points") or "").split()) for line in sessions.findall(f"{SVG}polyline")] == [3, 3]
    assert {"1", "4", "64"} <= {text.text for text in sessions.findall(f"{SVG}text")}
