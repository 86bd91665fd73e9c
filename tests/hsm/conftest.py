"""A SoftHSM token with good and bad keys, and the means to open it the way the service does."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from signer import logs
from signer.deadlines import Deadline
from signer.demo.stack import Token, provision
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.hung_calls import HungCalls
from signer.hsm.journal import Journal
from signer.hsm.keyring import HsmKeyRing
from signer.hsm.latch import Latch
from signer.metrics import Metrics

GOOD_LABEL = "test-settlement-key"
SECOND_LABEL = "test-payout-key"
INSTANT = datetime(2029, 1, 1, tzinfo=UTC)
"""When a planned version is to sign."""
HOUR = timedelta(hours=1)
LEAD = timedelta(seconds=45)


@dataclass(frozen=True)
class Opened:
    """A key ring over the test token, and what it was built from."""

    key_ring: HsmKeyRing
    metrics: Metrics
    connection: Connection
    ended: threading.Event
    """Set when the process would have ended itself."""
    wall_clock: Callable[[], datetime]

    def discarded(self) -> float:
        """How many sessions were thrown away so far."""
        family = next(iter(self.metrics.hsm.sessions_discarded.collect()))
        return sum(sample.value for sample in family.samples if sample.name.endswith("_total"))


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = Deadline.after(30)
    while not true():
        deadline.check()
        time.sleep(0.02)


OpenKeyRing = Callable[..., Opened]


def utc_now() -> datetime:
    """The clock of tests that set none."""
    return datetime.now(UTC)


def journal_of(metrics: Metrics, wall_clock: Callable[[], datetime] = utc_now) -> Journal:
    """What the HSM edge tells, over the metrics of a test."""
    return Journal(metrics.hsm, logs.get("test"), wall_clock)


@pytest.fixture(scope="session")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """One token for the whole run, with keys that are right and keys that are wrong, each in its own way."""
    made = provision(tmp_path_factory.mktemp("token"), "test-token", (GOOD_LABEL, SECOND_LABEL))
    script = Path(__file__).with_name("wrong_keys.py")
    subprocess.run(
        [sys.executable, str(script), str(made.conf.parent), made.label],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        timeout=60,
    )
    return made


@pytest.fixture
def pin(token: Token) -> str:
    """The Crypto User's PIN."""
    return token.pin_file.read_text(encoding="utf-8").strip()


@pytest.fixture
def softhsm(token: Token, monkeypatch: pytest.MonkeyPatch) -> Token:
    """The token, reachable from this process."""
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    return token


@pytest.fixture
def latch_file(tmp_path: Path) -> Path:
    """Where the key ring remembers that a person must look."""
    return tmp_path / "latch.json"


@pytest.fixture
def open_key_ring(softhsm: Token, pin: str, latch_file: Path) -> Iterator[OpenKeyRing]:
    """Open a key ring with the given specs; opening the next one closes it, since a process has one module."""
    with ExitStack() as stack:

        def open_one(
            *specs: KeySpec,
            sessions: int = 2,
            warm: bool = True,
            call_timeout_s: float = 30,
            clock: Callable[[], datetime] = utc_now,
            ended: threading.Event | None = None,
        ) -> Opened:
            ended = ended or threading.Event()
            stack.close()
            metrics = Metrics(CollectorRegistry())
            journal = journal_of(metrics, clock)
            hung_calls = HungCalls(call_timeout_s, sessions, ended.set, journal)
            stack.enter_context(closing(hung_calls))
            connection = Connection(softhsm.module, softhsm.label, lambda: pin, hung_calls, journal)
            stack.enter_context(closing(connection))
            wanted = specs or (spec(),)
            key_ring = HsmKeyRing(connection, "signer-dev", wanted, sessions, Latch(latch_file), journal)
            stack.enter_context(closing(key_ring))
            if warm:
                key_ring.warm_up(0)
            return Opened(key_ring, metrics, connection, ended, clock)

        yield open_one


def spec(label: str = GOOD_LABEL, fingerprint: str | None = None, *waived: str, alias: str = "settlement") -> KeySpec:
    """A key as the settings would describe it."""
    return KeySpec(alias, label, fingerprint, frozenset(waived))


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = INSTANT - HOUR

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """One hour before the instant."""
    return Clock()


@pytest.fixture
def open_planned(open_key_ring: OpenKeyRing, clock: Clock) -> Callable[..., Opened]:
    """Open a ring whose key has two versions, the younger under `label`."""

    def open_one(label: str = SECOND_LABEL, *, elder: KeySpec | None = None) -> Opened:
        younger = replace(spec(label), active_from=INSTANT, lead_s=LEAD.total_seconds())
        return open_key_ring(elder or spec(), younger, clock=clock)

    return open_one
