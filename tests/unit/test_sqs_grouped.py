"""Calls that are made at once go out as one: nobody is left waiting, and each gets the answer to its own."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from signer.errors import SignerError
from signer.sqs.errors import LeaseLostError
from signer.sqs.grouped import GroupedCalls, by_entry, is_refused
from tests.unit.stores import PATIENCE_S, wait_until

LANES = 2
MOST_BYTES = 1000
LOST = "somebody else has it"


def refusal(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessageBatch")  # type: ignore[typeddict-item] # the others do not matter


def ours() -> None:
    return


class Queue:
    """Takes numbers, ten to a call, and answers each with its tenfold; hangs while the gate is closed."""

    def __init__(self, long_s: float = 0.2) -> None:
        self.calls: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fails: Callable[[Sequence[int]], Exception | None] = lambda _: None
        self.refuses: frozenset[int] = frozenset()
        self.grouped: GroupedCalls[int, int] = GroupedCalls(
            self._call, is_refused, lambda number: number, MOST_BYTES, long_s=long_s
        )

    def _call(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.calls.append(list(numbers))
        assert self.gate.wait(PATIENCE_S)
        if (failure := self.fails(numbers)) is not None:
            raise failure
        return [refusal("Refused") if number in self.refuses else number * 10 for number in numbers]

    def together(
        self,
        numbers: Sequence[int],
        still_ours: Callable[[], None] = ours,
        meanwhile: Callable[[], None] = ours,
    ) -> list[int | BaseException]:
        """Make calls of all `numbers` while as many as there may be are under way; gives what became of each.

        `meanwhile` happens when all of them wait.
        """
        self.gate.clear()
        begun = len(self.calls) + LANES
        with ThreadPoolExecutor(LANES + len(numbers)) as threads:
            for _ in range(LANES):
                threads.submit(self.grouped.make, 0, ours)
            wait_until(lambda: len(self.calls) == begun)
            made = []
            for index, number in enumerate(numbers):
                made.append(threads.submit(self.grouped.make, number, still_ours))
                wait_until(lambda after=index + 1: self.grouped.waiting == after)  # type: ignore[misc] # a default
            meanwhile()
            self.gate.set()
            return [outcome(future) for future in made]

    @property
    def groups(self) -> list[list[int]]:
        """The calls after those that were under way."""
        return self.calls[LANES:]


def outcome(future: "Future[int]") -> int | BaseException:
    error = future.exception(PATIENCE_S)
    return future.result() if error is None else error


def test_what_comes_alone_goes_at_once() -> None:
    """Nothing waits for company."""
    queue = Queue()
    assert [queue.grouped.make(number, ours) for number in (1, 2)] == [10, 20]
    assert queue.calls == [[1], [2]]


def test_a_second_call_is_made_beside_one_that_does_not_end() -> None:
    """Not for one that just came, which may go along with others; but once it has waited for long."""
    queue = Queue()
    queue.gate.clear()
    with ThreadPoolExecutor(20) as threads:
        threads.submit(queue.grouped.make, 1, ours)
        wait_until(lambda: queue.calls == [[1]])
        begun_s = time.monotonic()
        threads.submit(queue.grouped.make, 2, ours)
        wait_until(lambda: queue.calls == [[1], [2]])
        assert time.monotonic() - begun_s >= 0.2
        queue.gate.set()


@pytest.mark.parametrize("numbers", [range(2, 12), (500, 501)], ids=["ten", "large"])
def test_a_second_call_is_made_for_what_fills_one(numbers: Sequence[int]) -> None:
    """By their number or by their size, they wait for no others."""
    queue = Queue(long_s=10 * PATIENCE_S)
    queue.gate.clear()
    with ThreadPoolExecutor(20) as threads:
        made = [threads.submit(queue.grouped.make, 1, ours)]
        wait_until(lambda: queue.calls == [[1]])
        made += [threads.submit(queue.grouped.make, number, ours) for number in numbers]
        wait_until(lambda: len(queue.calls) > 1)
        queue.gate.set()
    assert [outcome(future) for future in made] == [number * 10 for number in (1, *numbers)]


def test_what_comes_meanwhile_goes_ten_to_a_call() -> None:
    """In the order in which it came; each gets its own answer, and no call holds more than SQS takes."""
    queue = Queue()
    numbers = list(range(1, 26))
    assert queue.together(numbers) == [number * 10 for number in numbers]
    assert sorted(queue.groups) == [numbers[:10], numbers[10:20], numbers[20:]]
    assert queue.grouped.waiting == 0


def test_no_call_is_larger_than_it_may_be() -> None:
    """What is too large for company goes alone, even if it is too large altogether."""
    queue = Queue()
    queue.together([400, 500, 101, 2000, 3, 4])
    assert sorted(queue.groups) == [[3, 4], [101], [400, 500], [2000]]


def test_one_that_was_lost_while_it_waited_stays_out() -> None:
    """Each is asked right before the call that it goes into; the others of its group go."""
    queue = Queue()
    lost = threading.Event()
    asked = iter(range(4))

    def check() -> None:
        if next(asked) == 1 and lost.is_set():
            raise LeaseLostError(LOST)

    first, second, third = queue.together([7, 8, 9], check, lost.set)
    assert (first, third) == (70, 90)
    assert isinstance(second, LeaseLostError)
    assert queue.groups == [[7, 9]]


def test_a_group_of_which_nothing_is_left_makes_no_call() -> None:
    """And whoever comes next is served all the same."""
    queue = Queue()

    def check() -> None:
        raise LeaseLostError(LOST)

    assert all(isinstance(lost, LeaseLostError) for lost in queue.together([7, 8], check))
    assert queue.groups == []
    assert queue.together([9]) == [90]


def test_a_refused_entry_fails_by_itself() -> None:
    """Those beside it were done."""
    queue = Queue()
    queue.refuses = frozenset({3})
    before, refused, after = queue.together([2, 3, 4])
    assert (before, after) == (20, 40)
    assert isinstance(refused, ClientError)


@pytest.mark.parametrize("failure", [ReadTimeoutError(endpoint_url=""), refusal("InternalError", 500), OSError()])
def test_a_call_that_may_do_better_later_fails_for_all(failure: Exception) -> None:
    """Whether it took effect is unknown: each is told, and tries again by itself."""
    queue = Queue()
    queue.fails = lambda numbers: failure if len(numbers) > 1 else None
    assert queue.together([2, 3]) == [failure, failure]
    assert queue.groups == [[2, 3]]


def test_an_entry_that_no_call_takes_fails_alone() -> None:
    """Refused for good with others, each is sent by itself: one cannot hold the others back at every delivery."""
    queue = Queue()
    queue.fails = lambda numbers: refusal("InvalidMessageContents") if 3 in numbers else None
    before, refused, after = queue.together([2, 3, 4])
    assert (before, after) == (20, 40)
    assert isinstance(refused, ClientError)
    assert queue.groups == [[2, 3, 4], [2], [3], [4]]


def test_one_that_was_lost_while_the_call_failed_is_not_sent_by_itself() -> None:
    """A call that fails for good may have taken its time: each is asked once more."""
    queue = Queue()

    def check() -> None:
        if queue.groups == [[2, 3], [2]]:
            raise LeaseLostError(LOST)

    queue.fails = lambda numbers: refusal("InvalidMessageContents") if len(numbers) > 1 else None
    first, second = queue.together([2, 3], check)
    assert first == 20
    assert isinstance(second, LeaseLostError)
    assert queue.groups == [[2, 3], [2]]


def test_a_leader_that_is_torn_away_leaves_nobody_waiting() -> None:
    """What its thread did not get to is no success."""
    queue = Queue()

    def die(numbers: Sequence[int]) -> None:
        if numbers == [2, 3]:
            raise SystemExit

    queue.fails = die
    leader, follower = queue.together([2, 3])
    assert isinstance(leader, SystemExit)
    assert isinstance(follower, SignerError)
    assert queue.together([4]) == [40]


def test_each_entry_is_told_what_was_said_of_it() -> None:
    """By its id, in whatever order; one that nothing was said of was not done, and may be tried again."""
    said = {
        "Successful": [{"Id": "2", "MessageId": "c"}],
        "Failed": [{"Id": "0", "SenderFault": True, "Code": "MessageNotInflight"}],
    }
    refused, unknown, done = by_entry("DeleteMessageBatch", said, 3)
    assert done == {"Id": "2", "MessageId": "c"}
    assert isinstance(refused, ClientError)
    assert isinstance(unknown, ClientError)
    codes = [
        (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        for error in (refused, unknown)
    ]
    assert codes == [("MessageNotInflight", 400), ("NoAnswer", 500)]
