"""Whose turn it is: as many transactions at work as agreed, in the order of their groups, and nobody left out."""

import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from signer.metrics import Metrics, Stopwatch
from signer.settings import SqsSettings
from signer.sqs.case import Case, likely_transactions
from signer.sqs.lease import Lease
from signer.sqs.line import Line
from signer.sqs.messages import Attributes, Delivery, string_attribute
from signer.sqs.pointers import Pointer
from tests.unit.stores import PATIENCE_S, wait_until

BUDGET = 100
METRICS = Metrics(CollectorRegistry())


def a_line(queue: str = "inbound.fifo", max_batches: int = 100) -> Line:
    settings = SqsSettings(
        inbound_url=f"http://sqs/{queue}",
        outbound_url="-",
        quarantine_url="-",
        max_transactions_in_flight=BUDGET,
        max_batches_in_flight=max_batches,
    )
    return Line(settings, METRICS)


def a_case(message_id: str, transactions: int = 1, group_id: str | None = None) -> Case:
    system = {} if group_id is None else {"MessageGroupId": group_id}
    delivery = Delivery(message_id, "handle", "body", {}, system, 0.0, 0.0)
    lease = Lease(message_id, "handle", 0.0, 60.0, lambda: 0.0)
    return Case(delivery, lease, Stopwatch(METRICS, "sqs"), transactions)


def cases(*sizes: int, group_id: str | None = None) -> list[Case]:
    """Batches of these sizes, in this order."""
    return [a_case(f"{group_id}-{number}", size, group_id) for number, size in enumerate(sizes)]


def begun(line: Line) -> Iterator[Case]:
    """Take what may begin now, and stop where a worker would have to wait."""
    # A line that is closed and empty gives None; this one only looks.
    while (case := line._next()) is not None:  # noqa: SLF001 - `take` would wait
        taken = line.take(lambda _: True)
        assert taken is case
        yield taken


def test_transactions_are_counted_not_messages() -> None:
    """Batches begin in order while their transactions fit together; one that leaves makes room for the next."""
    line = a_line()
    first, second, third = waiting = cases(60, 40, 1)
    line.add(waiting)
    assert list(begun(line)) == [first, second]
    line.leave(second, goes_back=False)
    assert list(begun(line)) == [third]


def test_what_is_received_while_many_are_at_work_is_received_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more than half of the places taken, it waits for more of them to come free; not for long."""
    line = a_line(max_batches=16)
    taken = cases(*[1] * 10)
    line.add(taken)
    assert len(list(begun(line))) == 10

    def make_room() -> None:
        for case in taken[:5]:
            line.leave(case, goes_back=False)

    monkeypatch.setattr("signer.sqs.line._LINGER_S", PATIENCE_S)
    leaving = threading.Timer(0.01, make_room)
    leaving.start()
    assert line.room() >= 8
    leaving.join()
    monkeypatch.setattr("signer.sqs.line._LINGER_S", 0.01)
    line.add(cases(*[1] * 10, group_id="more"))
    assert line.room() == 1


def test_nobody_overtakes_one_that_waits_for_room() -> None:
    """A small batch behind a large one that does not fit yet waits with it: else the large one might wait for ever."""
    line = a_line()
    first, large, small = waiting = cases(60, 50, 1)
    line.add(waiting)
    assert list(begun(line)) == [first]
    line.leave(first, goes_back=False)
    assert list(begun(line)) == [large, small]


def test_one_beyond_the_budget_passes_alone() -> None:
    """A batch larger than all that may be at work begins once nothing else is, and nothing begins beside it."""
    line = a_line()
    small, huge, after = waiting = cases(1, BUDGET + 1, 1)
    line.add(waiting)
    assert list(begun(line)) == [small]
    line.leave(small, goes_back=False)
    assert list(begun(line)) == [huge]
    line.leave(huge, goes_back=False)
    assert list(begun(line)) == [after]


def test_room_ends_where_the_transactions_at_hand_reach_the_budget() -> None:
    """Those that wait count too; what is left is asked for, ten messages at most."""
    line = a_line()
    assert line.room() == 10
    line.add(cases(BUDGET - 3))
    assert line.room() == 3
    line.add(cases(200))
    assert line.room() == 0


def test_room_ends_where_every_worker_has_a_batch() -> None:
    """No more messages are at hand than there are threads to work on them."""
    line = a_line(max_batches=3)
    line.add(cases(1, 1))
    assert line.room() == 1


def test_who_asks_for_messages_is_told_of_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when it would have looked again."""
    monkeypatch.setattr("signer.sqs.line._LOOK_AGAIN_S", 60)
    line = a_line(max_batches=1)
    line.add(cases(1))
    (case,) = begun(line)
    asked: list[int] = []
    receiver = threading.Thread(target=lambda: asked.append(line.room()), daemon=True)
    receiver.start()
    wait_until(lambda: bool(vars(line._room_made)["_waiters"]))  # noqa: SLF001 - nothing else tells that it waits
    line.leave(case, goes_back=False)
    wait_until(lambda: asked == [1])


def test_a_batch_that_was_read_counts_as_what_it_is() -> None:
    """The guess at first sight gives way to the number of transactions, and room is as large as that leaves it."""
    line = a_line()
    line.add(cases(BUDGET))
    (case,) = begun(line)
    assert line.room() == 0
    line.weigh(case, 95)
    assert line.room() == 5
    registry = METRICS.registry
    assert registry.get_sample_value("signer_queue_transactions", {"state": "at_work"}) == 95


def test_one_of_a_group_is_at_work_at_a_time() -> None:
    """The second of a group begins when the first is done with; meanwhile other groups do."""
    line = a_line()
    first, second = cases(1, 1, group_id="a")
    other = a_case("b", group_id="b")
    line.add([first, second, other])
    assert list(begun(line)) == [first, other]
    line.leave(other, goes_back=False)
    assert list(begun(line)) == []
    assert line.leave(first, goes_back=False) == []
    assert list(begun(line)) == [second]


def test_when_one_goes_back_those_behind_it_go_too() -> None:
    """The rest of its group leaves the line unbegun, in order; the other groups stay."""
    line = a_line()
    first, second, third = cases(1, 1, 1, group_id="a")
    other = a_case("b", group_id="b")
    line.add([first, second, other, third])
    assert list(begun(line)) == [first, other]
    assert line.leave(first, goes_back=True) == [second, third]
    assert list(begun(line)) == []


def test_a_standard_queue_knows_no_order() -> None:
    """There a group is a matter of fairness: all of it may be at work at once, and one that goes back goes alone."""
    line = a_line("inbound")
    first, second = cases(1, 1, group_id="a")
    line.add([first, second])
    assert list(begun(line)) == [first, second]
    assert line.leave(first, goes_back=True) == []


def test_what_is_withdrawn_takes_along_what_is_behind_it() -> None:
    """A follower that stayed would overtake the one that went."""
    line = a_line()
    first, second = cases(1, 1, group_id="a")
    other, last = cases(1, 1, group_id="b")
    line.add([first, other, second, last])
    assert line.withdraw(lambda case: case in (first, last)) == [first, second, last]
    assert list(begun(line)) == [other]


def test_nothing_begins_before_it_may() -> None:
    """A worker waits with the batch in the line until it may begin."""
    line, looked, able = a_line(), threading.Semaphore(0), threading.Event()
    line.add(cases(1))

    def may_begin(_: Case) -> bool:
        looked.release()
        return able.is_set()

    taken: list[Case | None] = []
    worker = threading.Thread(target=lambda: taken.append(line.take(may_begin)))
    worker.start()
    assert looked.acquire(timeout=20)
    assert looked.acquire(timeout=20)
    assert taken == []
    able.set()
    worker.join(20)
    assert len(taken) == 1


class Workers:
    """Threads that take batches from a line, and keep them."""

    def __init__(self, line: Line, number: int) -> None:
        self.taken: list[Case] = []
        self._line = line
        self._threads = [threading.Thread(target=self._work) for _ in range(number)]
        for thread in self._threads:
            thread.start()
        self.wait_for_idle(number)

    def wait_for_idle(self, number: int) -> None:
        """Return once so many wait for something to do."""
        waiters = vars(self._line._may_go_on)["_waiters"]  # noqa: SLF001 - nothing else tells that they wait
        wait_until(lambda: len(waiters) == number)

    def have_ended(self) -> bool:
        """Whether all of them are told to end before long."""
        for thread in self._threads:
            thread.join(20)
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (case := self._line.take(lambda _: True)) is not None:
            self.taken.append(case)


def test_every_batch_that_may_begin_finds_a_worker() -> None:
    """Whether they come together, or one that leaves makes room for several; and the end is told to all."""
    line = a_line()
    workers = Workers(line, 4)
    large, *small = waiting = cases(BUDGET, 30, 30, 30)
    line.add(waiting)
    wait_until(lambda: workers.taken == [large])
    line.leave(large, goes_back=False)
    wait_until(lambda: len(workers.taken) == len(waiting))
    assert set(workers.taken[1:]) == set(small)
    line.close()
    assert workers.have_ended()


def test_the_last_batch_of_a_closed_line_lets_all_end() -> None:
    """One worker takes it, the others waited for it in vain."""
    line = a_line()
    first, second = waiting = cases(1, 1, group_id="a")
    line.add(waiting)
    assert line.take(lambda _: True) is first
    workers = Workers(line, 3)
    line.close()
    workers.wait_for_idle(3)
    line.leave(first, goes_back=False)
    assert workers.have_ended()
    assert workers.taken == [second]


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_closed_line_is_worked_off_and_then_ends(waiting: int) -> None:
    """Nothing joins it any more; what waits is still given out, and then every worker is told to end."""
    line = a_line()
    line.add(cases(*[1] * waiting))
    line.close()
    assert not line.add(cases(1))
    assert line.room() == 0
    assert [line.take(lambda _: True) is None for _ in range(waiting + 1)] == [False] * waiting + [True]


SIZED: Attributes = {"ExtendedPayloadSize": string_attribute("100000")}


@pytest.mark.parametrize(
    ("body", "attributes", "likely"),
    [
        ('{"transactions": [{"transaction_id": "a"}, {"transaction_id" : "b"}]}', {}, 2),
        ("not JSON", {}, 1),
        ('"transaction_id"' * 5000, {}, 1000),
        (Pointer("bucket", "key", 100_000).body(), SIZED, 1000),
        (Pointer("bucket", "key", 3_600).body(), {"ExtendedPayloadSize": string_attribute("3600")}, 100),
        ("no pointer", SIZED, 1),
    ],
)
def test_the_guess_is_never_below_one_nor_beyond_what_is_signed(body: str, attributes: Attributes, likely: int) -> None:
    """Inline transactions are counted by their name; of a body in S3 the size alone is known."""
    assert likely_transactions(Delivery("m", "h", body, attributes, {}, 0.0, 0.0), 1000) == likely
