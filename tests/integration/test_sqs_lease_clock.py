"""How long a lease is held, on a clock that the test sets."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
import structlog
from structlog.testing import LogCapture

from signer.demo.stack import Emulator
from signer.logs import Logger
from signer.settings import SqsSettings
from signer.sqs.client import make_client
from signer.sqs.inbound import InboundQueue
from signer.sqs.lease import Lease, Leases
from signer.sqs.messages import Delivery
from tests.integration.aws_faults import AwsFaults
from tests.integration.queues import Queue, Queues

TIMEOUT_S = 3600
TWELVE_HOURS_S = 12 * 3600


@dataclass
class Clock:
    """A clock that a test sets."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """Leases that beat when told to, on a real queue."""

    leases: Leases
    inbound: Queue
    faults: AwsFaults
    clock: Clock
    asked: list[tuple[float, int]] = field(default_factory=list)
    """When a beat was made, and for how many seconds."""

    def take_one(self) -> Lease:
        """Send a message, receive it, and give its lease, taken at second 0."""
        self.inbound.put("body")
        (message,) = self.inbound.take()
        delivery = Delivery(message["MessageId"], message["ReceiptHandle"], message["Body"], {}, {}, 0.0, 0.0)
        lease = self.leases.take(delivery)
        assert lease is not None
        return lease

    def beat_at(self, now_s: float) -> None:
        """Set the clock, and beat."""
        self.clock.now_s = now_s
        calls_before = len(self.faults.calls)
        self.leases.beat()
        for call in self.faults.calls[calls_before:]:
            self.asked += [(now_s, entry["VisibilityTimeout"]) for entry in call.parameters["Entries"]]


@pytest.fixture
def bench(emulator: Emulator, queues: Queues) -> Iterator[Bench]:
    settings = SqsSettings(
        inbound_url=queues.inbound.url, outbound_url="-", quarantine_url="-", endpoint_url=emulator.url
    )
    logger: Logger = structlog.wrap_logger(
        logging.getLogger("test"),
        processors=[LogCapture()],
        wrapper_class=structlog.make_filtering_bound_logger("DEBUG"),
    )
    clock = Clock()
    with closing(make_client(settings)) as client:
        leases = Leases(InboundQueue(client, settings), TIMEOUT_S, logger, clock)
        yield Bench(leases, queues.inbound, AwsFaults(client), clock)


def test_a_lease_counts_from_the_call_that_got_it(bench: Bench) -> None:
    """It is held for the timeout from the receive call, then from the latest beat that succeeded."""
    lease = bench.take_one()
    bench.beat_at(3000)
    bench.clock.now_s = 6599
    assert lease.held
    bench.clock.now_s = 6600
    assert not lease.held


def test_a_lease_that_ran_out_is_not_extended(bench: Bench) -> None:
    """A beat that comes too late is not made at all: the message may be somebody else's."""
    lease = bench.take_one()
    bench.beat_at(TIMEOUT_S)
    assert not lease.held
    assert bench.asked == []


def test_an_answer_that_comes_too_late_does_not_revive_a_lease(bench: Bench) -> None:
    """A beat under way while the timeout ran out proves nothing, whatever SQS answers."""
    lease = bench.take_one()
    bench.faults.before("ChangeMessageVisibilityBatch", lambda: setattr(bench.clock, "now_s", TIMEOUT_S + 1))
    bench.beat_at(TIMEOUT_S - 1)
    assert bench.asked == [(TIMEOUT_S - 1, TIMEOUT_S)]
    assert not lease.held


def test_no_beat_asks_for_more_than_twelve_hours(bench: Bench) -> None:
    """Visibility is extended to twelve hours from the receive and no further: SQS refuses what goes beyond."""
    lease = bench.take_one()
    for now_s in range(0, TWELVE_HOURS_S + 6000, 3000):
        bench.beat_at(now_s)
    assert not lease.held
    assert max(second + seconds for second, seconds in bench.asked) == TWELVE_HOURS_S
    assert min(seconds for _, seconds in bench.asked) > 0
