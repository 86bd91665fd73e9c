"""The acceptance test: `python -m loadtest --target http|sqs --rate 200 --duration 300`; `--help` says the rest."""

import argparse
import asyncio
import os
import random
import sys
from contextlib import ExitStack
from typing import Any, Final
from uuid import uuid4

from loadtest.bench import machine
from loadtest.knee import find_knee
from loadtest.live import Screen
from loadtest.messages import Book
from loadtest.objectives import fell_behind, missed
from loadtest.open_http import HttpDriver, HttpTarget
from loadtest.open_sqs import SqsDriver
from loadtest.openloop import run
from loadtest.options import read_options, shape
from loadtest.report import Report, write
from loadtest.schedule import plan
from loadtest.site import NoSiteError, Site, open_site
from loadtest.stopping import Stop, out_of_ctrl_c
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier
from signer.errors import SignerError

_PAGES: Final = 10_000
_PAGES_REPLAYED: Final = 500
_STOPPED: Final = 128


def main() -> int:
    """Load, prove, report; gives the exit status."""
    options = read_options()
    stop = Stop()
    began = machine.describe()
    try:
        with stop.at_signals(), ExitStack() as closing:
            with out_of_ctrl_c():
                site = closing.enter_context(open_site(options))
            verifier = Verifier(site.public_key_pem)
            closing.callback(verifier.close)
            tallies, verdict = _test(site, options, verifier, stop)
    except (NoSiteError, SignerError) as error:
        print(f"loadtest: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("loadtest: ended at once, nothing is proven", file=sys.stderr)  # noqa: T201
        return _STOPPED + (stop.signal or 0)
    ended = {"load_1min_at_end": round(os.getloadavg()[0], 2)}
    report = _judge(site.name, options, tallies, verdict, {**began, **ended}, stop)
    paths = write(report, options.reports)
    print(report.text(), *(f"report: {path}" for path in paths), sep="\n")  # noqa: T201
    return _STOPPED + stop.signal if stop.signal is not None else report.status


def _test(site: Site, options: argparse.Namespace, verifier: Verifier, stop: Stop) -> tuple[list[Tally], Verdict]:
    if verifier.pid is not None:
        site.meter.add("verifier", verifier.pid)
    signed_before = site.meter.signed()
    tallies = asyncio.run(_drive(site, options, verifier, stop))
    signed = site.meter.signed()
    site.end()
    verdict = verifier.result(site.audits, site.ledgers)
    made = None if signed is None or signed_before is None else signed - signed_before
    return tallies, verdict.beside(sum(tally.done * tally.size for tally in tallies), made)


async def _drive(site: Site, options: argparse.Namespace, verifier: Verifier, stop: Stop) -> list[Tally]:
    book = Book(options.message_bytes, _PAGES_REPLAYED if options.replay else _PAGES)
    prefix = f"LT-{uuid4().hex[:12]}"
    driver: HttpDriver | SqsDriver
    if isinstance(site.target, HttpTarget):
        driver = HttpDriver(site.target, book, verifier, prefix)
    else:
        driver = SqsDriver(site.target, book, verifier, prefix)
    chance = random.Random(options.seed) if options.poisson else None  # noqa: S311 - arrivals, not secrets
    with Screen() as screen:
        async with driver:
            return await run(driver, plan(shape(options)), site.meter, screen.show, chance, stop)


def _judge(
    site: str, options: argparse.Namespace, tallies: list[Tally], verdict: Verdict, ran_on: dict[str, Any], stop: Stop
) -> Report:
    figures = [tally.figures() for tally in tallies]
    failures = list(missed(figures, options.objectives))
    if stop.signal is not None:
        failures.insert(0, f"ended early, by {stop.signal.name}")
    ramp = [phase for phase in figures if phase["phase"].startswith("ramp-")]
    return Report(
        target=options.target,
        site=site,
        options={name: str(value) for name, value in vars(options).items() if name != "objectives" and value},
        machine=ran_on,
        tallies=tallies,
        objectives=options.objectives,
        missed=failures,
        fell_behind=list(fell_behind(figures, options.most_lag_ms)),
        verdict=verdict,
        knee=find_knee(ramp, options.most_lag_ms),
    )


if __name__ == "__main__":
    sys.exit(main())
