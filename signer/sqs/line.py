"""Batches that were received and wait for their turn: in order within a group, and no more at work than agreed."""

import threading
from collections.abc import Callable, Sequence
from typing import Final

from signer.metrics import Metrics
from signer.settings import SqsSettings
from signer.sqs.case import Case

_MOST_IN_ONE_RECEIVE: Final = 10
_LOOK_AGAIN_S: Final = 0.5
_LINGER_S: Final = 0.03


class Line:
    """What is at hand, measured in transactions: those of the batches that wait and of those at work.

    Batches begin in the order in which they came, and none overtakes one that waits for the others to make room. One
    that is larger than `sqs.max_transactions_in_flight` by itself begins when nothing else is at work.
    """

    def __init__(self, settings: SqsSettings, metrics: Metrics) -> None:
        self._max_transactions = settings.max_transactions_in_flight
        self._max_batches = settings.max_batches_in_flight
        self._much_room = min(_MOST_IN_ONE_RECEIVE, (self._max_batches + 1) // 2, self._max_transactions)
        # In a standard queue the group is a matter of fairness alone.
        self._keeps_order = settings.inbound_url.endswith(".fifo")
        self._metrics = metrics
        self._lock = threading.Lock()
        self._room_made, self._may_go_on = threading.Condition(self._lock), threading.Condition(self._lock)
        self._waiting: list[Case] = []
        self._at_work: list[Case] = []
        self._closed = False

    def room(self) -> int:
        """Give how many messages to ask for (0 to 10), after a short wait if there is no room.

        While more than half of the places are taken, it waits a moment for more of them to come free: to receive ten
        messages costs no more than to receive one.
        """
        with self._lock:
            self._room_made.wait_for(lambda: self._room() >= self._much_room, _LINGER_S)
            self._room_made.wait_for(lambda: self._room() > 0, _LOOK_AGAIN_S)
            return max(0, min(self._room(), _MOST_IN_ONE_RECEIVE))

    def add(self, cases: Sequence[Case]) -> bool:
        """Let batches join at the end; False, and nothing done, once the line is closed."""
        with self._lock:
            if not self._closed:
                self._waiting.extend(cases)
                self._tell()
            return not self._closed

    def take(self, may_begin: Callable[[Case], bool]) -> Case | None:
        """Wait for the next batch to work on, and until it `may_begin`; None once the line is closed and empty."""
        with self._lock:
            while self._waiting or not self._closed:
                case = self._next()
                if case is not None and may_begin(case):
                    self._waiting.remove(case)
                    self._at_work.append(case)
                    self._tell()
                    return case
                self._may_go_on.wait(None if case is None else _LOOK_AGAIN_S)
            return None

    def weigh(self, case: Case, transactions: int) -> None:
        """Note how large a batch at work is, now that it was read."""
        with self._lock:
            case.transactions = transactions
            self._tell()

    def leave(self, case: Case, *, goes_back: bool) -> list[Case]:
        """Take a batch away that is done with; gives the batches to go back with it if it `goes_back`.

        Those are the ones behind it in its group: worked on now, they would overtake it.
        """
        with self._lock:
            self._at_work.remove(case)
            followers = [other for other in self._waiting if goes_back and self._follows(other, case)]
            return self._withdraw(followers)

    def withdraw(self, which: Callable[[Case], bool]) -> list[Case]:
        """Take waiting batches away that go back unbegun, and those behind them in their groups."""
        with self._lock:
            chosen: list[Case] = []
            for case in self._waiting:
                if which(case) or any(self._follows(case, earlier) for earlier in chosen):
                    chosen.append(case)
            return self._withdraw(chosen)

    def close(self) -> None:
        """Let nothing more join."""
        with self._lock:
            self._closed = True
            self._room_made.notify_all()
            self._may_go_on.notify_all()

    def _room(self) -> int:
        cases = self._waiting + self._at_work
        transactions = sum(case.transactions for case in cases)
        return 0 if self._closed else min(self._max_batches - len(cases), self._max_transactions - transactions)

    def _next(self) -> Case | None:
        at_work = sum(case.transactions for case in self._at_work)
        for index, case in enumerate(self._waiting):
            if any(self._follows(case, earlier) for earlier in (*self._at_work, *self._waiting[:index])):
                continue
            return case if not at_work or at_work + case.transactions <= self._max_transactions else None
        return None

    def _follows(self, case: Case, earlier: Case) -> bool:
        return self._keeps_order and case.delivery.group_id == earlier.delivery.group_id

    def _withdraw(self, cases: list[Case]) -> list[Case]:
        for case in cases:
            self._waiting.remove(case)
        self._tell()
        return cases

    def _tell(self) -> None:
        for state, cases in (("waiting", self._waiting), ("at_work", self._at_work)):
            self._metrics.queue_transactions.labels(state).set(sum(case.transactions for case in cases))
        if self._room() > 0:
            self._room_made.notify()
        if self._closed:
            self._may_go_on.notify_all()
        elif self._next() is not None:
            # One worker, who wakes the next on taking it: to wake all each time costs more than small batches do.
            self._may_go_on.notify()
