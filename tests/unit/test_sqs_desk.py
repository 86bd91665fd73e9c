"""Small batches are signed together, and none pays for another: not its size, its time, nor its hung call."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from signer.deadlines import Deadline
from signer.metrics import Stopwatch
from signer.settings import SqsSettings
from signer.sqs.bodies import Bodies
from signer.sqs.desk import SigningDesk
from signer.sqs.errors import LeaseLostError
from signer.sqs.messages import Delivery, SignedBatch
from tests.scripted import Hold
from tests.simulators import Simulation, simulate
from tests.unit.stores import PATIENCE_S, wait_until

URL = "http://127.0.0.1/000000000000/"
SMALL, LARGE = 25, 26


class SlowBodies(Bodies):
    """Takes its time over the batches that were named."""

    def __init__(self) -> None:
        super().__init__(None)
        self.slow_s: dict[str, float] = {}

    def body_of(self, delivery: Delivery, deadline: Deadline) -> bytes:
        """Give the body in the message."""
        time.sleep(self.slow_s.get(delivery.message_id, 0))
        return super().body_of(delivery, deadline)


class Desk:
    """A desk over simulated edges, with threads that bring batches to it."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.simulation: Simulation = simulate({"settlement": frozenset({"queue:inbound"})})
        self.bodies = SlowBodies()
        settings = SqsSettings(
            inbound_url=f"{URL}inbound", outbound_url=f"{URL}outbound", quarantine_url=f"{URL}quarantine"
        )
        self._desk = SigningDesk(self.simulation.service, settings, 30.0, self.bodies)
        self._threads = threads

    def bring(self, name: str, size: int, still_ours: Callable[[], None] = lambda: None) -> "Future[SignedBatch]":
        """Have a batch signed, on a thread of its own."""
        return self._threads.submit(self._desk.sign, delivery(name, size), self.watch(), lambda _: None, still_ours)

    def sign(self, name: str, watch: Stopwatch) -> "Future[SignedBatch]":
        """Have a batch of one signed, timed by `watch`."""
        return self._threads.submit(self._desk.sign, delivery(name, 1), watch, lambda _: None, lambda: None)

    def watch(self) -> Stopwatch:
        """A stopwatch of its own."""
        return Stopwatch(self.simulation.metrics, "sqs")

    @contextmanager
    def with_one_in_the_core(self) -> Iterator[Hold]:
        """Let the block begin while a batch of one is held up in there, and end with everything let go."""
        with self.simulation.key_ring.held() as held:
            self.bring("first", 1)
            held.wait_for(1)
            yield held

    def wait_for_waiting(self, count: int) -> None:
        """Return once so many wait to be signed together."""
        wait_until(lambda: self._desk._small.waiting == count)  # noqa: SLF001 - nobody else can tell


def delivery(name: str, size: int) -> Delivery:
    """A message with a batch of so many."""
    transactions = [{"transaction_id": f"{name}-{number}", "message": {"n": number}} for number in range(size)]
    batch = {"schema": "settlement-batch/1", "batch_id": name, "key": "settlement", "transactions": transactions}
    return Delivery(name, "", json.dumps(batch), {}, {}, time.monotonic(), time.monotonic())


@pytest.fixture
def desk() -> Iterator[Desk]:
    with ThreadPoolExecutor(16) as threads:
        yield Desk(threads)


@pytest.fixture
def patient_desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """One whose batches wait for each other as long as it takes."""
    monkeypatch.setattr("signer.sqs.desk._LONG_S", 10 * PATIENCE_S)
    with ThreadPoolExecutor(16) as threads:
        yield Desk(threads)


def test_those_that_hang_hold_up_nobody(desk: Desk) -> None:
    """However many calls do not come back from the HSM, the next batch goes in beside them."""
    with desk.with_one_in_the_core() as held:
        brought = []
        for number in range(2, 8):
            brought.append(desk.bring(f"STL-{number}", 1))
            held.wait_for(number)
    assert all(future.result(PATIENCE_S).outcomes == {"signed": 1} for future in brought)


def test_no_batch_waits_for_more_than_fifty_transactions_of_others(patient_desk: Desk) -> None:
    """What would be more begins beside them, and a large one waits for nobody."""
    with patient_desk.with_one_in_the_core() as held:
        for number in range(2):
            patient_desk.bring(f"STL-{number}", SMALL)
            patient_desk.wait_for_waiting(number + 1)
        patient_desk.bring("STL-2", SMALL)
        held.wait_for(2)
        patient_desk.bring("LARGE", LARGE)
        held.wait_for(3)
        assert patient_desk.simulation.ledger.sizes["claim"] == [1, 2 * SMALL, LARGE]


def test_one_that_has_little_time_left_is_signed_by_itself(patient_desk: Desk) -> None:
    """Those beside it would have no more time than it has."""
    patient_desk.bodies.slow_s["LATE"] = 1.1
    with patient_desk.with_one_in_the_core() as held:
        waits = patient_desk.bring("STL-1", 1)
        patient_desk.bring("LATE", 1)
        held.wait_for(2)
        patient_desk.wait_for_waiting(1)
    assert waits.result(PATIENCE_S).outcomes == {"signed": 1}


@pytest.mark.parametrize("size", [1, LARGE])
def test_a_batch_that_was_lost_meanwhile_is_not_claimed(desk: Desk, size: int) -> None:
    """To fetch and read it took its time; somebody else may have it by now."""

    def lost() -> None:
        msg = "somebody else has it"
        raise LeaseLostError(msg)

    assert isinstance(desk.bring("STL-1", size, lost).exception(PATIENCE_S), LeaseLostError)
    assert not desk.simulation.ledger.bound


def test_the_wait_for_others_is_told(patient_desk: Desk) -> None:
    """It counts towards admission, so that the stages of a batch add up to its time."""
    watch = patient_desk.watch()
    with patient_desk.with_one_in_the_core():
        waits = patient_desk.sign("STL-1", watch)
        patient_desk.wait_for_waiting(1)
        time.sleep(0.1)
    waits.result(PATIENCE_S)
    assert watch.seconds["admission"] >= 0.1
