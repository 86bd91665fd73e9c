"""Calls that are made at once, put together: what each would cost by itself is spent once for up to ten."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from botocore.exceptions import ClientError

from signer.aws import may_pass
from signer.sqs.errors import QueueUnavailableError

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")

MOST_ENTRIES: Final = 10
"""SQS takes no more."""
_MOST_CALLS: Final = 2
_LONG_S: Final = 0.2


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Entry, Answer]):
    """One entry, and the thread that waits for its answer."""

    entry: Entry
    still_ours: Callable[[], None]
    size: int
    since_s: float = field(default_factory=time.monotonic)
    woken: threading.Event = field(default_factory=threading.Event)
    leads: "Sequence[_Waiting[Entry, Answer]]" = ()
    """The call that this thread is to make, for itself and others."""
    outcome: "Answer | Exception" = field(default_factory=lambda: QueueUnavailableError("the call was not made"))


class GroupedCalls(Generic[Entry, Answer]):
    """Makes one call of what has come while another was under way; threads make it themselves, the first for all.

    Another one is made beside it, up to `most_calls`, where entries fill one, or one has waited for `long_s`: one that
    hangs does not hold up all.

    `call` is given one to ten entries, of `most` together by their `size` (or one that is larger), and gives, for each
    in order, an answer or the exception that it failed with. What it raises, all of them failed with; unless it
    `may_be_for_one`: then each is tried by itself.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], Sequence[Answer | Exception]],
        may_be_for_one: Callable[[Exception], bool],
        size: Callable[[Entry], int] = lambda _: 0,
        most: int = 0,
        *,
        most_calls: int = _MOST_CALLS,
        long_s: float = _LONG_S,
    ) -> None:
        self._call = call
        self._may_be_for_one = may_be_for_one
        self._size = size
        self._most = most
        self._most_calls = most_calls
        self._long_s = long_s
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[Entry, Answer]] = deque()
        self._under_way = 0

    @property
    def waiting(self) -> int:
        """Entries that will go out with the next calls."""
        return len(self._waiting)

    def make(self, entry: Entry, still_ours: Callable[[], None]) -> Answer:
        """Give the answer to one entry; raises what it failed with.

        `still_ours` is called right before the call that it goes into, on whichever thread: what that raises ends it.
        """
        mine: _Waiting[Entry, Answer] = _Waiting(entry, still_ours, self._size(entry))
        with self._lock:
            self._waiting.append(mine)
            self._begin()
        while not mine.woken.wait(self._long_s):
            with self._lock:
                self._begin()
        if mine.leads:
            self._lead(mine.leads)
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def _lead(self, group: Sequence[_Waiting[Entry, Answer]]) -> None:
        try:
            self._answer(group)
        finally:
            with self._lock:
                self._under_way -= 1
                self._begin()
            for waiting in group[1:]:
                waiting.woken.set()

    def _answer(self, waiting_for_it: Sequence[_Waiting[Entry, Answer]]) -> None:
        group = [waiting for waiting in waiting_for_it if _is_ours(waiting)]
        try:
            outcomes = self._call([waiting.entry for waiting in group]) if group else ()
        except Exception as error:  # noqa: BLE001 - each thread gets to know, not this one alone
            if len(group) > 1 and self._may_be_for_one(error):
                for waiting in group:
                    self._answer([waiting])
                return
            outcomes = [error] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            waiting.outcome = outcome

    def _begin(self) -> None:
        """Let the first of those that wait make a call for as many as it takes, while one is due."""
        while self._is_due():
            self._under_way += 1
            group = [self._waiting.popleft()]
            size = group[0].size
            while self._waiting and len(group) < MOST_ENTRIES:
                size += self._waiting[0].size
                if size > self._most:
                    break
                group.append(self._waiting.popleft())
            group[0].leads = group
            group[0].woken.set()

    def _is_due(self) -> bool:
        if not self._waiting or self._under_way == self._most_calls:
            return False
        fills_a_call = len(self._waiting) >= MOST_ENTRIES or sum(each.size for each in self._waiting) > self._most
        return not self._under_way or fills_a_call or self._waiting[0].since_s < time.monotonic() - self._long_s


def is_refused(error: Exception) -> bool:
    """Tell whether a queue refused a call for good: one entry that no call takes must not fail those beside it."""
    return isinstance(error, ClientError) and not may_pass(error)


def by_entry(operation: str, answer: Mapping[str, Any], count: int) -> list[Mapping[str, Any] | ClientError]:
    """Read the answer to a batch operation: what it says of each entry, whose ids are 0, 1, 2 ...

    An entry that it does not speak of was not done, as far as anybody knows.
    """
    said: dict[str, Mapping[str, Any] | ClientError] = {entry["Id"]: entry for entry in answer.get("Successful", [])}
    said |= {entry["Id"]: _refusal(operation, entry) for entry in answer.get("Failed", [])}
    return [said.get(str(index)) or _refusal(operation, {"Code": "NoAnswer"}) for index in range(count)]


def _refusal(operation: str, entry: Mapping[str, Any]) -> ClientError:
    # As the operation on a single message fails: whether another try may do better is told by code and status.
    return ClientError(
        {
            "Error": {"Code": entry["Code"], "Message": ""},
            "ResponseMetadata": {"HTTPStatusCode": 400 if entry.get("SenderFault") else 500},  # type: ignore[typeddict-item] # the others are not known
        },
        operation,
    )


def _is_ours(waiting: _Waiting[Any, Any]) -> bool:
    try:
        waiting.still_ours()
    except Exception as error:  # noqa: BLE001 - it ends this entry alone
        waiting.outcome = error
        return False
    return True
