"""Calls to a queue that are made at once, put together as SQS takes them: up to ten entries in one call."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from signer.aws import may_pass
from signer.sqs.errors import QueueUnavailableError

Entry = TypeVar("Entry")
Answer = TypeVar("Answer")

MOST_ENTRIES: Final = 10
_MOST_CALLS: Final = 2
"""So many are under way before entries wait for each other; over two, one that hangs does not hold up all."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Entry, Answer]):
    """One entry, and the thread that waits for its answer."""

    entry: Entry
    still_ours: Callable[[], None]
    size_bytes: int
    woken: threading.Event = field(default_factory=threading.Event)
    leads: "Sequence[_Waiting[Entry, Answer]]" = ()
    """The call that this thread is to make, for itself and others."""
    outcome: "Answer | Exception" = field(default_factory=lambda: QueueUnavailableError("the call was not made"))


class GroupedCalls(Generic[Entry, Answer]):
    """Makes one call of what has come while others were under way; threads make it themselves, the first for all.

    `call` is given one to ten entries of `most_bytes` together (or one that is larger) and gives, for each in order, an
    answer or the exception that it failed with. What it raises, all of them failed with.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Entry]], Sequence[Answer | Exception]],
        size_bytes: Callable[[Entry], int] = lambda _: 0,
        most_bytes: int = 0,
    ) -> None:
        self._call = call
        self._size_bytes = size_bytes
        self._most_bytes = most_bytes
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
        mine: _Waiting[Entry, Answer] = _Waiting(entry, still_ours, self._size_bytes(entry))
        with self._lock:
            if self._under_way < _MOST_CALLS:
                self._under_way += 1
                mine.leads = [mine]
            else:
                self._waiting.append(mine)
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._lead(mine.leads)
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    def _lead(self, group: Sequence[_Waiting[Entry, Answer]]) -> None:
        try:
            self._answer(group)
        finally:
            self._pass_on()
            for waiting in group[1:]:
                waiting.woken.set()

    def _answer(self, waiting_for_it: Sequence[_Waiting[Entry, Answer]]) -> None:
        group = [waiting for waiting in waiting_for_it if _is_ours(waiting)]
        try:
            outcomes = self._call([waiting.entry for waiting in group]) if group else ()
        except (BotoCoreError, ClientError) as error:
            if len(group) > 1 and not may_pass(error):
                # One entry that no call takes must not fail those beside it.
                for waiting in group:
                    self._answer([waiting])
                return
            outcomes = [error] * len(group)
        except Exception as error:  # noqa: BLE001 - each thread gets to know, not this one alone
            outcomes = [error] * len(group)
        for waiting, outcome in zip(group, outcomes, strict=True):
            waiting.outcome = outcome

    def _pass_on(self) -> None:
        """Let the first of those that wait make the next call."""
        with self._lock:
            if not self._waiting:
                self._under_way -= 1
                return
            group = [self._waiting.popleft()]
            size = group[0].size_bytes
            while self._waiting and len(group) < MOST_ENTRIES:
                size += self._waiting[0].size_bytes
                if size > self._most_bytes:
                    break
                group.append(self._waiting.popleft())
        group[0].leads = group
        group[0].woken.set()


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
