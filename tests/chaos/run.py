"""One run: everything is sent, killed, disturbed and collected; then it is checked."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.batches import Mill
from tests.chaos.checker import Violation, check, outbound_duplicates
from tests.chaos.evidence import Copy, Evidence, Journal, Sent, SetAside, read_audit, read_journal
from tests.chaos.feeder import Collector, Feeder
from tests.chaos.keeper import Keeper, Kills, end
from tests.chaos.ledgers import read_dynamodb, read_sqlite
from tests.chaos.site import ROOT, Ledger, Service, Site, open_site
from tests.chaos.trouble import Trouble

_START_S: Final = 60.0
_SETTLE_S: Final = 300.0
_POLL_S: Final = 0.2
_TELL_EVERY_S: Final = 15.0
_ENOUGH: Final = 20
_PUBLIC_KEY: Final = "/v1/keys/settlement/public-key"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    ledger: Ledger
    processes: int
    fifo: bool
    batches: int = 20
    """At least."""
    failpoints: tuple[str, ...] = ()
    kills_each: int = 0
    """At each of them."""
    random_kills: int = 0
    network_faults: int = 0
    stops: int = 0
    """Times that a process is stopped for longer than its leases."""
    seed: int = 1
    longest_s: float = 1500.0
    code: Path = ROOT
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it; as JSON it is the report that people read."""

    ledger: str
    processes: int
    batches: int
    kills: dict[str, int]
    network_faults: dict[str, int]
    outbound_duplicates: int
    violations: list[Violation]

    def document(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def run(plan: Plan, directory: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Do all of it in an empty `directory`, where the evidence then lies."""
    directory.mkdir(parents=True, exist_ok=True)
    with (
        open_site(directory, plan.ledger, plan.processes, fifo=plan.fifo, code=plan.code, extra=plan.extra) as site,
        ExitStack() as stack,
    ):
        (directory / "public-key.pem").write_bytes(_first_start(site.services[0]))
        journals = {name: Journal(directory / f"{name}.jsonl") for name in ("sent", "out", "set-aside")}
        collector = stack.enter_context(closing(Collector(site, journals["out"], journals["set-aside"])))
        feeder = Feeder(site, Mill(plan.seed), journals["sent"], collector.is_out)
        kills = Kills(plan.failpoints, plan.kills_each, plan.random_kills, plan.seed)
        keepers = [
            stack.enter_context(closing(Keeper(service, kills, feeder.feed, plan.seed + number)))
            for number, service in enumerate(site.services)
        ]
        trouble = stack.enter_context(closing(Trouble(keepers, plan.network_faults, plan.stops, plan.seed)))
        for keeper in keepers:
            keeper.start()
        trouble.start()
        finished = _play(plan, site, feeder, kills, trouble, say)
        stack.close()
        violations = [*check(evidence_of(site)), *_own_deaths(keepers)]
        if not finished:
            violations.append(Violation("unfinished", "the run", "ended before all that was to go wrong had"))
        return Report(
            plan.ledger, plan.processes, feeder.count, dict(kills.made), dict(trouble.met),
            outbound_duplicates(evidence_of(site)), violations,
        )  # fmt: skip


def _play(plan: Plan, site: Site, feeder: Feeder, kills: Kills, trouble: Trouble, say: Callable[[str], None]) -> bool:
    began_s = told_s = time.monotonic()
    while not (kills.finished and trouble.finished) and time.monotonic() < began_s + plan.longest_s:
        time.sleep(_POLL_S)
        if kills.finished and site.depth("inbound") < _ENOUGH:
            # What is still to go wrong needs something to go wrong with.
            feeder.feed("")
        if time.monotonic() > told_s + _TELL_EVERY_S:
            told_s = time.monotonic()
            done = f"{feeder.count} batches, {kills.made.total()} kills, {trouble.met.total()} faults"
            say(f"{told_s - began_s:.0f} s: {done}")
    finished = kills.finished and trouble.finished
    trouble.close()
    feeder.fill(plan.batches)
    settled_s = time.monotonic() + _SETTLE_S
    while (feeder.withheld or site.depth("inbound")) and time.monotonic() < settled_s:
        feeder.fill(0)
        time.sleep(_POLL_S)
    return finished


def _first_start(service: Service) -> bytes:
    """Start the service once, for its public key."""
    process = service.start()
    try:
        return public_key_of(service, process)
    finally:
        end(process)


def public_key_of(service: Service, process: subprocess.Popen[bytes]) -> bytes:
    """Fetch the public key as a peer would, once the service is up; raises `RuntimeError` if it does not come up."""
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            with urllib.request.urlopen(service.http_url + _PUBLIC_KEY, timeout=2) as answer:  # noqa: S310 - loopback
                pem: bytes = answer.read()
                return pem
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    msg = f"the service does not start; see {service.log}"
    raise RuntimeError(msg)


def evidence_of(site: Site) -> Evidence:
    """Read everything that a run has left behind, once no process of it runs any more."""
    directory = site.directory
    rows = read_sqlite(site.ledger_path) if site.ledger == "sqlite" else read_dynamodb(site.dynamodb, site.table)
    return Evidence(
        (directory / "public-key.pem").read_bytes(),
        read_journal(directory / "sent.jsonl", Sent),
        read_journal(directory / "out.jsonl", Copy),
        read_journal(directory / "set-aside.jsonl", SetAside),
        rows,
        {service.name: read_audit(service.audit_directory) for service in site.services},
        {role: site.depth(role) for role in ("inbound", "dead-letter", "outbound", "quarantine")},
        site.fifo,
    )


def _own_deaths(keepers: list[Keeper]) -> list[Violation]:
    return [
        Violation("died", keeper.service.name, f"ended by itself with status {status}")
        for keeper in keepers
        for status in keeper.unexpected()
    ]


def write_reports(reports: list[Report], path: Path) -> None:
    """Write them where people look for them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([report.document() for report in reports], indent=2) + "\n", encoding="utf-8")
