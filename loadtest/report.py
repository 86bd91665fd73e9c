"""What a load test found, as text, as JSON for machines and as one HTML page for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest.objectives import Objective
from loadtest.page import render
from loadtest.tally import Tally
from loadtest.verifier import Verdict

_FELL_BEHIND: Final = 3


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    target: str
    site: str
    options: Mapping[str, str]
    machine: Mapping[str, Any]
    tallies: Sequence[Tally]
    objectives: Sequence[Objective]
    missed: Sequence[str]
    fell_behind: Sequence[str]
    verdict: Verdict
    knee: Mapping[str, Any] | None

    @property
    def passed(self) -> bool:
        """Whether everything was met, and proven."""
        return not (self.missed or self.fell_behind or self.verdict.problems)

    @property
    def status(self) -> int:
        """The exit status."""
        return _FELL_BEHIND if self.fell_behind else int(not self.passed)

    def document(self) -> dict[str, Any]:
        """Give it as it stands in the JSON."""
        return {
            "schema": "loadtest-report/1",
            "target": self.target,
            "site": self.site,
            "passed": self.passed,
            "missed": list(self.missed),
            "generator_fell_behind": list(self.fell_behind),
            "objectives": [{"figure": each.figure, "most": each.most} for each in self.objectives],
            "proof": {
                "verified": self.verdict.verified,
                "compared_with_ledger_and_audit": self.verdict.compared,
                "made_by_hsm": self.verdict.made,
                "problems": list(self.verdict.problems),
            },
            "knee": self.knee,
            "phases": [
                tally.figures()
                | {"began_s": round(tally.began_s - self.tallies[0].began_s, 3), "rate_asked": tally.phase.rate}
                | {"series": tally.series(), "distribution": tally.distribution()}
                for tally in self.tallies
            ],
            "options": dict(self.options),
            "machine": dict(self.machine),
        }

    def text(self) -> str:
        """Say it in lines."""
        lines = [_line(tally.figures()) for tally in self.tallies]
        where = "and each is in the ledger and in the audit log" if self.verdict.compared else "no ledger, no audit log"
        lines.append(f"{self.verdict.verified:,} signatures verified, {where}")
        if self.knee is not None:
            found = "knee" if self.knee["found"] else "no knee"
            lines.append(f"{found}: {self.knee['rate']:g}/s followed, {self.knee['most_rate']:g}/s at most; "
                         f"{self.knee['resource']}")  # fmt: skip
        lines += [f"FAILED {why}" for why in (*self.fell_behind, *self.missed, *self.verdict.problems)]
        lines.append("PASSED" if self.passed else "NOT PASSED")
        return "\n".join(lines)


def _line(phase: Mapping[str, Any]) -> str:
    return (
        f"{phase['phase']:<9} {phase['offered_rate']:7.1f}/s asked {phase['rate']:7.1f}/s got "
        f"{phase['transactions']:>8,} signed {phase['errors']:>5} errors  p50 {phase['p50_ms']:.1f}  "
        f"p99 {phase['p99_ms']:.1f}  p99.9 {phase['p99.9_ms']:.1f}  max {phase['max_ms']:.1f} ms  "
        f"late p99 {phase['generator_lag_p99_ms']:.1f} ms"
    )


def write(report: Report, directory: Path) -> tuple[Path, Path]:
    """Write both files; gives their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    document = report.document()
    machines, people = (directory / f"loadtest-{report.target}.{kind}" for kind in ("json", "html"))
    machines.write_text(json.dumps(document, indent=1), encoding="utf-8")
    people.write_text(render(document), encoding="utf-8")
    return machines, people
