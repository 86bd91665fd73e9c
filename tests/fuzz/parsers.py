"""Every parser, given what is nearly right: it gives a value or its own error, and the error quotes no input."""

import argparse
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import file_parsers, http_parsers, sqs_parsers, store_parsers
from tests.fuzz.mutations import anything
from tests.fuzz.parser import Parser

PARSERS: Final[dict[str, Parser]] = {
    **http_parsers.PARSERS,
    **sqs_parsers.PARSERS,
    **file_parsers.PARSERS,
    **store_parsers.PARSERS,
}
_ROUND: Final = 200
"""Inputs to one parser before the next has its turn."""


@dataclass
class Figures:
    """What came of one parser."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def run(seconds: float) -> dict[str, Figures]:
    """Go through the parsers, one after the other and each at least once, until the time is over."""
    figures = {name: Figures() for name in PARSERS}
    until = time.monotonic() + seconds
    while True:
        for name, parser in PARSERS.items():
            _round(parser, figures[name])
            if time.monotonic() >= until and all(each.outcomes for each in figures.values()):
                return figures


def _round(parser: Parser, figures: Figures) -> None:
    @settings(
        max_examples=_ROUND,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.one_of(parser.inputs(), parser.inputs(), parser.inputs(), anything()))
    def read(data: bytes) -> None:
        began_s = time.perf_counter()
        figures.outcomes[parser.check(data)] += 1
        figures.slowest_s = max(figures.slowest_s, time.perf_counter() - began_s)

    read()


def main() -> None:
    """Fuzz for so many seconds, and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=600.0)
    arguments.add_argument("--reports", type=Path, default=Path(".local/reports"))
    options = arguments.parse_args()
    began_s = time.monotonic()
    figures = run(options.seconds)
    took_s = time.monotonic() - began_s
    for name, each in figures.items():
        read, refused = each.outcomes["read"], each.outcomes["refused"]
        print(f"{name:28} {read:>9,} read {refused:>9,} refused, the slowest in {each.slowest_s * 1e3:,.0f} ms")  # noqa: T201
    total = sum(each.outcomes.total() for each in figures.values())
    report = {name: {**each.outcomes, "slowest_s": round(each.slowest_s, 4)} for name, each in figures.items()}
    options.reports.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {"inputs": total, "seconds": round(took_s), "load": os.getloadavg()[0], "parsers": report}, indent=2
    )
    (options.reports / "fuzz.json").write_text(text, encoding="utf-8")
    print(f"{total:,} inputs to {len(figures)} parsers in {took_s:.0f} s, nothing found")  # noqa: T201


if __name__ == "__main__":
    main()
