"""Many submitters share one durable commit, and none of them is left waiting or answered wrongly."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pytest

from signer.errors import LedgerUnavailableError
from signer.group_commit import GroupCommit
from tests.unit.stores import PATIENCE_S, in_threads, new_metrics, wait_until

POISON = 666


class NewDevice(Protocol):
    def __call__(self, timeout_s: float = PATIENCE_S, max_items: int = 1000) -> "Device": ...


class Device:
    """A store that keeps what it commits, hangs while it is held, and fails when told to."""

    def __init__(self, timeout_s: float = PATIENCE_S, max_items: int = 1000) -> None:
        self.metrics = new_metrics()
        self.commits: list[list[int]] = []
        self.failure: Exception | None = None
        self.writer: threading.Thread | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._entered = threading.Event()
        self.group = GroupCommit(
            "ledger", self._commit, LedgerUnavailableError, timeout_s, self.metrics, max_items=max_items
        )

    def _commit(self, items: list[int]) -> list[int]:
        self.writer = threading.current_thread()
        self._entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        if POISON in items:
            raise ValueError
        self.commits.append(items)
        return [item * 10 for item in items]

    @contextmanager
    def held(self, item: int = 0) -> Iterator[None]:
        """Let the commit of `item` hang during the block."""
        self.gate.clear()
        self._entered.clear()
        self.group.post([item])
        assert self._entered.wait(PATIENCE_S)
        yield
        self.gate.set()

    def sample(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name, {"store": "ledger"})
        assert value is not None
        return value


@pytest.fixture
def new_device() -> Iterator[NewDevice]:
    """Makes devices, and closes them after the test."""
    devices: list[Device] = []

    def make(timeout_s: float = PATIENCE_S, max_items: int = 1000) -> Device:
        devices.append(Device(timeout_s, max_items))
        return devices[-1]

    yield make
    for device in devices:
        device.gate.set()
        device.group.close()


def submitting(device: Device, *items: int) -> Callable[[], list[int]]:
    return lambda: device.group.submit(items)


def test_everyone_gets_the_results_of_their_own_items(new_device: NewDevice) -> None:
    """With 16 threads and 50 submissions each, every answer belongs to its question."""
    device = new_device()

    def work(thread: int) -> bool:
        numbers = [thread * 1000 + index for index in range(50)]
        return all(device.group.submit([n, n + 1]) == [n * 10, n * 10 + 10] for n in numbers)

    assert in_threads([functools.partial(work, thread) for thread in range(16)]) == [True] * 16
    assert sum(map(len, device.commits)) == 16 * 50 * 2


def test_what_waits_shares_one_commit(new_device: NewDevice) -> None:
    """Sixteen submissions that arrive while a commit is under way are made durable by one further commit."""
    device = new_device()
    with device.held():
        for number in range(1, 17):
            device.group.post([number])
    assert device.group.close()
    assert device.commits == [[0], list(range(1, 17))]
    assert device.sample("signer_commit_group_size_count") == 2
    assert device.sample("signer_commit_group_size_sum") == 17


def test_a_group_is_bounded_and_a_submission_is_never_split(new_device: NewDevice) -> None:
    """Submissions fill a group up to its bound; one that alone is larger has a commit of its own."""
    device = new_device(max_items=4)
    with device.held():
        for items in ([1, 2], [3, 4], [5], [6, 7, 8, 9, 10], [11]):
            device.group.post(items)
    assert device.group.close()
    assert device.commits == [[0], [1, 2, 3, 4], [5], [6, 7, 8, 9, 10], [11]]


def test_nothing_to_commit_costs_nothing(new_device: NewDevice) -> None:
    """An empty submission returns at once, even while the device hangs."""
    device = new_device()
    with device.held():
        device.group.post([])
        assert device.group.submit([]) == []
    assert device.group.close()
    assert device.commits == [[0]]


def test_a_failed_commit_fails_each_submitter_with_an_error_of_its_own(new_device: NewDevice) -> None:
    """Everybody in the group gets the named error, in an instance nobody else has; the next commit works again."""
    device = new_device()
    device.failure = LedgerUnavailableError("the disk is full")
    outcomes: list[list[int] | Exception] = []
    with device.held():
        threads = threading.Thread(
            target=lambda: outcomes.extend(in_threads([submitting(device, n) for n in range(8)])), daemon=True
        )
        threads.start()
        wait_until(lambda: device.group.waiting == 8)
    threads.join(PATIENCE_S)
    assert [str(outcome) for outcome in outcomes] == ["the disk is full"] * 8
    assert all(isinstance(outcome, LedgerUnavailableError) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 8
    assert device.sample("signer_commit_failures_total") == 2
    assert not device.group.healthy
    device.failure = None
    assert device.group.submit([1]) == [10]
    assert device.group.healthy


def test_a_defect_in_the_commit_is_named_without_its_words(new_device: NewDevice) -> None:
    """An unknown exception becomes the named error, keeps its cause for the log, and does not end the writer."""
    device = new_device()
    device.failure = ValueError("PIN 1234")
    with pytest.raises(LedgerUnavailableError, match=r"^the ledger store failed \(ValueError\)$") as caught:
        device.group.submit([1])
    assert caught.value.__cause__ is device.failure
    device.failure = None
    assert device.group.submit([2]) == [20]


def test_a_defect_hits_only_the_submission_that_caused_it(new_device: NewDevice) -> None:
    """When a group cannot be committed because of one item in it, the others of the group are committed without it."""
    device = new_device()
    with device.held():
        for number in (1, POISON, 2):
            device.group.post([number])
    assert device.group.close()
    assert device.commits == [[0], [1], [2]]
    assert device.sample("signer_commit_failures_total") == 1


def test_a_hanging_device_frees_its_submitters(new_device: NewDevice) -> None:
    """Who waits behind a hanging commit gets the named error in time, and is never committed afterwards."""
    device = new_device(timeout_s=0.05)
    with device.held():
        with pytest.raises(LedgerUnavailableError, match="did not make it durable within"):
            device.group.submit([1])
        assert not device.group.healthy
        assert device.sample("signer_commit_failures_total") == 1
        assert device.group.waiting == 0
        device.group.post([2])
    wait_until(lambda: device.commits == [[0], [2]])
    assert device.group.healthy


def test_who_gave_up_during_their_own_commit_is_answered_with_the_error(new_device: NewDevice) -> None:
    """A commit that hangs with the submitter's own item ends in the named error, although it may still succeed."""
    device = new_device(timeout_s=0.05)
    device.gate.clear()
    with pytest.raises(LedgerUnavailableError, match="did not make it durable within"):
        device.group.submit([1])
    device.gate.set()
    wait_until(lambda: device.commits == [[1]])


def test_the_queue_is_bounded(new_device: NewDevice) -> None:
    """When eight groups wait already, the next submission is refused at once."""
    device = new_device(max_items=2)
    with device.held():
        for number in range(8):
            device.group.post([number, number])
        with pytest.raises(LedgerUnavailableError, match="too much waits"):
            device.group.submit([99])
    assert device.group.close()
    assert all(99 not in commit for commit in device.commits)


def test_what_undoes_a_submission_still_finds_room(new_device: NewDevice) -> None:
    """A queue too full for another submission takes ten times as much of what is posted, and then no more."""
    device = new_device(max_items=2)
    with device.held():
        for number in range(80):
            device.group.post([number, number])
        device.group.post([99])
    assert device.group.close()
    assert sum(map(len, device.commits)) == 161
    assert all(99 not in commit for commit in device.commits)


def test_close_finishes_what_is_queued_and_refuses_the_rest(new_device: NewDevice) -> None:
    """Closing commits everything that was accepted; a later submission gets the named error."""
    device = new_device()
    with device.held():
        device.group.post([1])
        closing = threading.Thread(target=device.group.close)
        closing.start()
    closing.join(PATIENCE_S)
    assert device.commits == [[0], [1]]
    with pytest.raises(LedgerUnavailableError, match="closed"):
        device.group.submit([2])
    assert device.group.close()


def test_close_does_not_wait_for_ever(new_device: NewDevice) -> None:
    """Closing behind a hanging commit gives up in time and says so."""
    device = new_device(timeout_s=0.05)
    with device.held():
        assert not device.group.close()


def test_the_writer_is_a_named_daemon(new_device: NewDevice) -> None:
    """A hanging device cannot keep the process alive, and a stack dump names the thread."""
    device = new_device()
    device.group.submit([1])
    assert device.writer is not None
    assert device.writer.daemon
    assert device.writer.name == "ledger-commit"
    assert device.group.close()
    assert not device.writer.is_alive()
