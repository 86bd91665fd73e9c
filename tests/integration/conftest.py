"""A real SQS endpoint, and the queue entrance running against it over simulated edges."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from mypy_boto3_sqs import SQSClient
from structlog.testing import LogCapture

from signer.demo.stack import Emulator
from signer.ledger.dynamodb import DynamodbLedger
from signer.logs import Logger
from signer.settings import SqsSettings
from signer.sqs.client import make_clients
from signer.sqs.consumer import Consumer
from tests.integration.aws_faults import AwsFaults
from tests.integration.ledgers import new_table, open_table
from tests.integration.queues import Queues, fresh_queues, until
from tests.integration.tls_support import SPIFFE, Files
from tests.pki import Authority, Holder, server_certificate, uri
from tests.simulators import Simulation, simulate
from tests.unit.stores import Clock

_DRAIN_S = 30.0
_BATCH_ENDS = ("forwarded", "quarantined", "returned", "lost_lease")


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with closing(Emulator(tmp_path_factory.mktemp("emulator"))) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", running.sqs.meta.region_name)
        yield running


@pytest.fixture
def queues(emulator: Emulator) -> Queues:
    return fresh_queues(emulator.sqs)


@dataclass
class Entrance:
    """The queue entrance under test, what it stands on, and what it said."""

    consumer: Consumer
    client: SQSClient
    simulation: Simulation
    queues: Queues
    faults: AwsFaults
    object_faults: AwsFaults | None
    """Of S3; None where the settings name no buckets."""
    log: list[Any] = field(default_factory=list)

    def count(self, event: str) -> int:
        """How many batches met `event`, as the metrics have it."""
        registry = self.simulation.metrics.registry
        return int(registry.get_sample_value("signer_batches_total", {"event": event}) or 0)

    def wait_for(self, event: str, count: int = 1) -> None:
        """Return once `count` batches met `event`."""
        until(lambda: self.count(event) >= count, f"{count} batches {event}")

    def drain(self) -> None:
        """Stop it; every batch that was received must then have ended in exactly one way."""
        assert self.consumer.drain(_DRAIN_S)
        assert self.count("received") == sum(self.count(event) for event in _BATCH_ENDS)

    def lines(self, event: str) -> list[Any]:
        """Give the log lines called `event`."""
        return [line for line in list(self.log) if line["event"] == event]


StartEntrance = Callable[..., Entrance]


@pytest.fixture
def make_entrance(emulator: Emulator, queues: Queues) -> Iterator[StartEntrance]:
    """Build an entrance that does not run yet; changes to its settings are arguments."""
    with ExitStack() as stack:

        def make(queues: Queues = queues, **changes: Any) -> Entrance:
            settings = SqsSettings(
                **{
                    "inbound_url": queues.inbound.url,
                    "outbound_url": queues.outbound.url,
                    "quarantine_url": queues.quarantine.url,
                    "endpoint_url": emulator.url,
                    "wait_s": 1,
                    "retry_after_s": 0,
                    "max_transactions": 10,
                    **changes,
                }
            )
            simulation = simulate({"settlement": frozenset({_caller(queues)}), "payout": frozenset({"nobody"})})
            clients = stack.enter_context(closing(make_clients(settings)))
            log = LogCapture()
            consumer = Consumer(clients, settings, simulation.service, simulation.metrics, _logger(log), 30.0)
            stack.callback(consumer.drain, _DRAIN_S)
            objects = None if clients.objects is None else AwsFaults(clients.objects)
            faults = AwsFaults(clients.queues, clients.leases)
            return Entrance(consumer, clients.queues, simulation, queues, faults, objects, log.entries)

        yield make


@pytest.fixture
def start_entrance(make_entrance: StartEntrance) -> StartEntrance:
    """Build an entrance and start it; it is drained when the test ends."""

    def start(queues: Queues | None = None, **changes: Any) -> Entrance:
        entrance = make_entrance(**changes) if queues is None else make_entrance(queues, **changes)
        entrance.consumer.start()
        return entrance

    return start


@pytest.fixture
def entrance(start_entrance: StartEntrance) -> Entrance:
    """The entrance, running, with settings that suit a test."""
    return start_entrance()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    root = Authority("Root")
    certificate, key = server_certificate(root).write(tmp_path, "server")
    made = Files(tmp_path, root, certificate, key)
    made.client_ca.write_bytes(root.pem)
    made.client_crl.write_bytes(root.crl())
    return made


@pytest.fixture
def honest(files: Files) -> Holder:
    return files.root.issue("settlement", [uri(SPIFFE)])


def _caller(queues: Queues) -> str:
    return "queue:" + queues.inbound.url.rpartition("/")[2]


def _logger(log: LogCapture) -> Logger:
    logger: Logger = structlog.wrap_logger(
        logging.getLogger("test"), processors=[log], wrapper_class=structlog.make_filtering_bound_logger("DEBUG")
    )
    return logger


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(emulator: Emulator) -> str:
    return new_table(emulator)


@pytest.fixture
def ledger(emulator: Emulator, table: str, clock: Clock) -> Iterator[DynamodbLedger]:
    with closing(open_table(emulator.url, table, clock, retention_days=30)) as opened:
        yield opened


@pytest.fixture
def faults(ledger: DynamodbLedger) -> AwsFaults:
    return AwsFaults(ledger.client)
