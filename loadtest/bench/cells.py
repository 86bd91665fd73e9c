"""One figure of the benchmark: a path over a module, measured in turns with the module's own limit."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from loadtest.closed import Load, Run, percentile
from loadtest.closed_http import BATCH_ROUTE, HttpLoad
from loadtest.closed_sqs import SqsLoad
from loadtest.limit import Limit
from loadtest.messages import Book
from loadtest.proof import NotProvenError, Proof, check_made
from loadtest.stage import Module, Service, Stage

_PAGES: Final = 500
_MICRO: Final = 1e6
MOST_RATIO: Final = 1.25
"""Nobody signs faster than the module: what is above 1 is the machine's doing, and so much of it proves nothing."""


@dataclass(frozen=True, slots=True)
class Path:
    """A way through the service, and how much is asked of it at a time."""

    name: str
    entrance: str
    batch: int
    under_way: int
    """Connections, or batches between the queues."""


PATHS: Final = {
    path.name: path
    for path in (
        Path("sqs-1", "sqs", 1, 64),
        Path("sqs-25", "sqs", 25, 32),
        Path("sqs-500", "sqs", 500, 8),
        Path("http-single", "http", 1, 32),
        Path("http-batch-10", "http-batch", 10, 8),
        Path("http-batch-100", "http-batch", 100, 4),
    )
}


@dataclass(frozen=True, slots=True)
class Setup:
    """How a service is brought up to be measured."""

    sessions: int | None = None
    """None: as many as the module has."""
    processes: int = 1
    message_bytes: int = 250
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the service, and the limits before and after it."""

    run: Run
    cpu_us: float
    """CPU time of the service for each signature, without that inside C_Sign, but where signatures are replayed."""
    limit: float
    limit_cpu_us: float
    """CPU time of C_SignInit and C_Sign, called from C, for each signature."""
    load: float
    """Of the machine, over the last minute."""

    @property
    def ratio(self) -> float:
        """What part of the limit was reached."""
        return self.run.rate / self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """A path over a module, and all of its rounds."""

    path: str
    module: str
    rounds: Sequence[Round]
    rss_mb: float

    def row(self) -> dict[str, str | float]:
        """Give medians and spread, as they stand in bench.json."""
        latencies = [each for measured in self.rounds for each in measured.run.latencies_ms]
        return {
            "path": self.path,
            "module": self.module,
            "rate": round(median(measured.run.rate for measured in self.rounds), 1),
            "limit_rate": round(median(measured.limit for measured in self.rounds), 1),
            "ratio": round(median(measured.ratio for measured in self.rounds), 4),
            "service_cpu_us": round(median(measured.cpu_us for measured in self.rounds), 1),
            "limit_cpu_us": round(median(measured.limit_cpu_us for measured in self.rounds), 1),
            **_spread("ratio", [measured.ratio for measured in self.rounds], 4),
            **_spread("service_cpu_us", [measured.cpu_us for measured in self.rounds], 1),
            "p50_ms": round(percentile(latencies, 500), 3),
            "p99_ms": round(percentile(latencies, 990), 3),
            "p999_ms": round(percentile(latencies, 999), 3),
            "rss_mb": round(self.rss_mb, 1),
        }

    def check(self) -> None:
        """Raise `NotProvenError` if it is too good to be true."""
        if (ratio := median(measured.ratio for measured in self.rounds)) > MOST_RATIO:
            msg = f"{self.path}, {self.module}: {ratio:.2f} of the limit, beyond {MOST_RATIO:g} no figure counts"
            raise NotProvenError(msg)

    def detail(self) -> dict[str, object]:
        """Give what was seen in each round."""
        return {
            "path": self.path,
            "module": self.module,
            "signatures": sum(measured.run.signatures for measured in self.rounds),
            "ratios": [round(measured.ratio, 4) for measured in self.rounds],
            "service_cpu_us": [round(measured.cpu_us, 1) for measured in self.rounds],
            "load": [round(measured.load, 2) for measured in self.rounds],
        }


def _spread(name: str, values: Sequence[float], digits: int) -> dict[str, float]:
    return {f"{name}_min": round(min(values), digits), f"{name}_max": round(max(values), digits)}


class Bench:
    """Running processes of the service on one stage, and the loads for them."""

    def __init__(self, stage: Stage, services: Sequence[Service], setup: Setup) -> None:
        self.services = services
        self.module: Module = stage.module
        self._stage = stage
        self._sessions = setup.sessions or stage.module.sessions
        self._book = Book(setup.message_bytes, _PAGES)
        self.proof = Proof(services[0].public_key())
        self._runs = 0

    def serves(self, path: Path) -> bool:
        """Whether the service has that path at all."""
        return path.entrance != "http-batch" or BATCH_ROUTE in self.services[0].routes()

    def load(self, path: Path) -> Load:
        """Make the load of a path, and run it until its messages were all signed once and the service is warm."""
        first = self.services[0].stack
        load: Load
        if path.entrance == "sqs":
            load = SqsLoad(first.sqs, first.queues, path.batch, path.under_way, self._book, self.proof)
        else:
            urls = [service.stack.http_url for service in self.services]
            batch = None if path.entrance == "http" else path.batch
            load = HttpLoad(urls, path.under_way, batch, self._book, self.proof)
        self.run(load, path.name, _WARM_UP_S)
        return load

    def run(self, load: Load, name: str, seconds: float) -> Run:
        """Run it; raises `NotProvenError` unless each signature that came out was made by the module meanwhile."""
        self._runs += 1
        made_before = self._made()
        run = load.run(f"{name}-{self._runs}", seconds)
        check_made(run.signatures, self._made() - made_before)
        return run

    def limit(self, seconds: float) -> Limit:
        """Measure what the module can do with as many threads as the services have sessions."""
        return self._stage.limit(self._sessions * len(self.services), seconds)

    def turn(self, load: Load, path: Path, seconds: float, before: Limit, after_s: float) -> tuple[Round, Limit]:
        """Run the service, then measure the limit again; everything is verified before that."""
        used_s, signing_s = self._used()
        run = self.run(load, path.name, seconds)
        used_after_s, signing_after_s = self._used()
        load.verify()
        spent_s = used_after_s - used_s - (0 if self._is_free else signing_after_s - signing_s)
        after = self.limit(after_s)
        limit, limit_cpu_us = (before.rate + after.rate) / 2, (before.cpu_us + after.cpu_us) / 2
        return Round(run, spent_s / run.signatures * _MICRO, limit, limit_cpu_us, os.getloadavg()[0]), after

    def rss_mb(self) -> float:
        """Give the memory of one process."""
        return max(service.rss_mb() for service in self.services)

    def check(self) -> int:
        """End the services and compare what they recorded with what came out; raises `NotProvenError`."""
        for service in self.services:
            service.program.terminate()
        return self.proof.check(
            [service.audit for service in self.services], [service.ledger for service in self.services]
        )

    @property
    def _is_free(self) -> bool:
        return self.module.replays and self.module.preset is None

    def _made(self) -> int:
        return sum(service.signed() for service in self.services)

    def _used(self) -> tuple[float, float]:
        return (
            sum(service.cpu_s() for service in self.services),
            sum(service.signing_cpu_s() for service in self.services),
        )


_WARM_UP_S: Final = 2.0


@contextmanager
def opened(stage: Stage, name: str, setup: Setup, python: str = sys.executable) -> Iterator[Bench]:
    """Start the processes one after another, for SoftHSM minds when they start at once."""
    environment = dict(setup.environment)
    if setup.sessions is not None:
        environment["SIGNER_HSM__SESSIONS"] = str(setup.sessions)
    with ExitStack() as stack:
        services: list[Service] = []
        for number in range(setup.processes):
            beside = services[0] if services else None
            services.append(stack.enter_context(stage.service(f"{name}-{number}", environment, python, beside)))
        yield Bench(stage, services, setup)


def measure(bench: Bench, path: Path, rounds: int, seconds: float) -> Figure:
    """Measure a path in so many turns; raises `NotProvenError`."""
    load = bench.load(path)
    limit_s = max(1.0, seconds / 2)
    limit = bench.limit(limit_s)
    measured: list[Round] = []
    for _ in range(rounds):
        turn, limit = bench.turn(load, path, seconds, limit, limit_s)
        measured.append(turn)
    figure = Figure(path.name, bench.module.name, measured, bench.rss_mb())
    figure.check()
    return figure
