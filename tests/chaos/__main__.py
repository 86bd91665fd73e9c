"""make chaos: two processes over DynamoDB, then one over SQLite; the findings lie in .local/reports/chaos.json."""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtest.stopping import clean_up_at_sigterm
from signer import failpoints
from tests.chaos.run import Plan, run, write_reports
from tests.chaos.site import ROOT

_PLANS: Final = {
    "dynamodb": Plan(ledger="dynamodb", processes=2, fifo=False, stops=8),
    "sqlite": Plan(ledger="sqlite", processes=1, fifo=True, stops=2),
}


def main() -> int:
    """Run, and tell; 1 if anything happened that must not."""
    clean_up_at_sigterm()
    options = _options()
    reports = []
    for ledger in options.ledger:
        plan = replace(
            _PLANS[ledger],
            failpoints=failpoints.NAMES,
            batches=options.batches,
            kills_each=options.kills_each,
            random_kills=options.random_kills,
            network_faults=options.network_faults,
            seed=options.seed,
        )
        directory = options.dir / ledger
        shutil.rmtree(directory, ignore_errors=True)
        _say(f"{ledger}, {plan.processes} processes, {'FIFO' if plan.fifo else 'standard'} queues")
        report = run(plan, directory, _say)
        reports.append(report)
        _say(f"{report.batches} batches, {sum(report.kills.values())} kills, {report.network_faults}")
        _say(f"{report.outbound_duplicates} outbound duplicates, {len(report.violations)} violations")
        for violation in report.violations[:20]:
            _say(f"  {violation.rule}: {violation.what}: {violation.detail}")
        write_reports(reports, options.report)
    return int(any(report.violations for report in reports))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--ledger", action="append", choices=list(_PLANS), help="only this one")
    parser.add_argument("--batches", type=int, default=2000, help="at least")
    parser.add_argument("--kills-each", type=int, default=10, help="at each failpoint")
    parser.add_argument("--random-kills", type=int, default=50)
    parser.add_argument("--network-faults", type=int, default=54)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--dir", type=Path, default=ROOT / ".local/chaos", help="emptied first; the evidence stays there"
    )
    parser.add_argument("--report", type=Path, default=ROOT / ".local/reports/chaos.json")
    options = parser.parse_args()
    options.ledger = options.ledger or list(_PLANS)
    return options


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
