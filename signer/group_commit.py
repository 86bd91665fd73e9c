"""Turns many concurrent submissions into few durable commits: one writer thread, one commit for all that waits."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from signer.errors import SignerError, UnavailableError
from signer.metrics import Metrics

Item = TypeVar("Item")
Result = TypeVar("Result")

# So many full groups may wait before the next submission is refused at once.
_QUEUED_GROUPS: Final = 8
_POSTED_GROUPS: Final = 10 * _QUEUED_GROUPS


class _Submission(Generic[Item, Result]):
    """Items that wait together, and what became of them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.finished = threading.Event()
        self.results: list[Result] = []
        self.error: Exception | None = None


class GroupCommit(Generic[Item, Result]):
    """Calls `commit` with everything that was submitted while the commit before was under way.

    `commit` runs on one thread only and MUST return, in order, one result for each item, and only when all are
    durable. When it raises, nobody in the group is answered: each submitter gets an error of its own, made by
    `unavailable` with the message of a `SignerError`. Any other exception is a defect that one item may have caused, so
    each submission is then committed by itself.

    A group holds at most `max_items`, unless one submission alone is larger: a submission is never split.
    """

    def __init__(
        self,
        store: str,
        commit: Callable[[list[Item]], list[Result]],
        unavailable: Callable[[str], UnavailableError],
        timeout_s: float,
        metrics: Metrics,
        max_items: int = 1000,
    ) -> None:
        self._store = store
        self._commit = commit
        self._unavailable = unavailable
        self._timeout_s = timeout_s
        self._max_items = max_items
        self._sizes = metrics.group_size.labels(store)
        self._failures = metrics.commit_failures.labels(store)
        self._queue: deque[_Submission[Item, Result]] = deque()
        self._queued_items = 0
        self._changed = threading.Condition()
        self._closing = False
        self._healthy = True
        self._writer = threading.Thread(target=self._run, name=f"{store}-commit", daemon=True)
        self._writer.start()

    @property
    def healthy(self) -> bool:
        """False from a commit that failed or hangs until the next that succeeds."""
        return self._healthy

    @property
    def waiting(self) -> int:
        """Items queued behind the commit that is under way."""
        return self._queued_items

    def submit(self, items: Sequence[Item]) -> list[Result]:
        """Give the result of each item, in order, once the one commit that holds them all is durable.

        Raises the named error when that commit fails or takes too long, when the queue is full, and after `close`.
        After a time-out the items may still become durable if their commit was under way; else they never will.
        """
        if not items:
            return []
        submission = self._enqueue(items)
        if not submission.finished.wait(self._timeout_s) and self._give_up(submission):
            msg = f"the {self._store} store did not make it durable within {self._timeout_s:g} s"
            raise self._unavailable(msg)
        if submission.error is not None:
            raise self._unavailable(_describe(self._store, submission.error)) from submission.error
        return submission.results

    def post(self, items: Sequence[Item]) -> None:
        """Queue items behind all that was submitted before, without waiting; if they are lost, nobody is told.

        There is room for ten times as much as may be submitted: it undoes what was submitted, so it must not be
        refused because so much is.
        """
        if items:
            with suppress(UnavailableError):
                self._enqueue(items, _POSTED_GROUPS)

    def close(self) -> bool:
        """Finish what is queued and refuse what comes after; False if the writer still hangs in a commit then."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(self._timeout_s)
        return not self._writer.is_alive()

    def _enqueue(self, items: Sequence[Item], groups: int = _QUEUED_GROUPS) -> _Submission[Item, Result]:
        submission: _Submission[Item, Result] = _Submission(items)
        with self._changed:
            if self._closing:
                msg = f"the {self._store} store is closed"
                raise self._unavailable(msg)
            if self._queue and self._queued_items + len(items) > groups * self._max_items:
                msg = f"too much waits for the {self._store} store already"
                raise self._unavailable(msg)
            self._queue.append(submission)
            self._queued_items += len(items)
            self._changed.notify()
        return submission

    def _give_up(self, submission: _Submission[Item, Result]) -> bool:
        """Withdraw a submission whose time is over; False if it finished at the last moment."""
        with self._changed:
            if submission.finished.is_set():
                return False
            if submission in self._queue:
                self._queue.remove(submission)
                self._queued_items -= len(submission.items)
            self._healthy = False
        self._failures.inc()
        return True

    def _run(self) -> None:
        while group := self._next_group():
            self._commit_group(group)

    def _commit_group(self, group: Sequence[_Submission[Item, Result]]) -> None:
        items = [item for submission in group for item in submission.items]
        try:
            results = self._commit(items)
        except Exception as error:  # noqa: BLE001 - the writer outlives every defect, and its submitters learn of it
            if len(group) > 1 and not isinstance(error, SignerError):
                # One item nobody can store must not fail those beside it, again at each redelivery.
                for submission in group:
                    self._commit_group([submission])
                return
            self._failures.inc()
            self._finish(group, error=error)
        else:
            self._sizes.observe(len(items))
            self._finish(group, results=results)

    def _next_group(self) -> list[_Submission[Item, Result]]:
        """Wait for work and take all of it that fits; nothing once closed and drained."""
        group: list[_Submission[Item, Result]] = []
        size = 0
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            while self._queue and (not group or size + len(self._queue[0].items) <= self._max_items):
                submission = self._queue.popleft()
                size += len(submission.items)
                group.append(submission)
            self._queued_items -= size
        return group

    def _finish(
        self,
        group: Sequence[_Submission[Item, Result]],
        results: Sequence[Result] = (),
        error: Exception | None = None,
    ) -> None:
        with self._changed:
            self._healthy = error is None
            start = 0
            for submission in group:
                end = start + len(submission.items)
                submission.results = list(results[start:end])
                submission.error = error
                submission.finished.set()
                start = end


def _describe(store: str, error: Exception) -> str:
    """Say what went wrong; what a foreign exception says may not be fit for a stranger."""
    return error.message if isinstance(error, SignerError) else f"the {store} store failed ({type(error).__name__})"
