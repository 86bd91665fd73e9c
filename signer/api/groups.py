"""Lets requests that come one by one be signed together: one hand-over, one commit, one call of the HSM for many."""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from starlette.responses import Response

from signer.api.exchange import Exchange
from signer.errors import DeadlineExceededError
from signer.signing import Call, SigningService
from signer.work import Outcome

_MOST_GROUPS: Final = 32
_LARGEST_GROUP: Final = 64

Steps = Generator[Call, Outcome, Response]
"""How a request is answered: it yields its one transaction, is sent what became of it, and returns the answer."""
Work = Callable[[bytes, Exchange], Steps]
_Answer = Response | Exception


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request and who waits for its answer."""

    exchange: Exchange
    steps: Steps
    answer: asyncio.Future[Response]
    timer: asyncio.TimerHandle | None = field(default=None)


class Groups:
    """Takes all requests that have come to the core in one group, on one thread, while there is room in there.

    There is for `requests`, in however many groups, and beyond them for `groups`. The more requests there are, the
    larger are the groups, and the less each request costs. All but the work itself happens on the event loop, so the
    counters need no lock.
    """

    def __init__(self, service: SigningService, requests: int, groups: int) -> None:
        self._service = service
        self._room_for_requests, self._room_for_groups = requests, groups
        self._groups_in_core = self._requests_in_core = 0
        self._threads = ThreadPoolExecutor(_MOST_GROUPS, thread_name_prefix="http-signing")
        self._queue: deque[_Waiting] = deque()
        self._is_planned = False

    async def run(self, work: Work, body: bytes, exchange: Exchange) -> Response:
        """Give the answer to one request.

        It does not begin if there was no room before its deadline (`DeadlineExceededError`), nor if by then nobody
        waits for the answer (`ClientGoneError`).
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(exchange, work(body, exchange), loop.create_future())
        waiting.timer = loop.call_later(exchange.deadline.remaining_s(), _give_up, waiting)
        self._queue.append(waiting)
        self._plan(loop)
        return await waiting.answer

    def close(self) -> None:
        """Take no more work; what runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not at once: what else has arrived by now is read first, and goes along.
        if not self._is_planned:
            self._is_planned = True
            loop.call_soon(self._send_off, loop)

    def _send_off(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_planned = False
        while self._queue and self._has_room():
            group = self._next_group()
            if group:
                self._groups_in_core += 1
                self._requests_in_core += len(group)
                self._threads.submit(self._work, group, loop)

    def _has_room(self) -> bool:
        most = _MOST_GROUPS if self._requests_in_core < self._room_for_requests else self._room_for_groups
        return self._groups_in_core < most

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        while self._queue and len(group) < _LARGEST_GROUP:
            waiting = self._queue.popleft()
            if waiting.timer is not None:
                waiting.timer.cancel()
            if waiting.answer.done():
                continue
            try:
                waiting.exchange.require_client()
            except Exception as error:  # noqa: BLE001 - out of the queue already: it would wait for ever
                waiting.answer.set_exception(error)
            else:
                group.append(waiting)
        return group

    def _work(self, group: Sequence[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        answers = self._answers([waiting.steps for waiting in group])
        with suppress(RuntimeError):  # the loop is closed: the server gave up waiting for them
            loop.call_soon_threadsafe(self._finish, group, answers, loop)

    def _finish(self, group: Sequence[_Waiting], answers: Sequence[_Answer], loop: asyncio.AbstractEventLoop) -> None:
        self._groups_in_core -= 1
        self._requests_in_core -= len(group)
        for waiting, answer in zip(group, answers, strict=True):
            if waiting.answer.done():
                continue  # the server gave up waiting for this one
            if isinstance(answer, Response):
                waiting.answer.set_result(answer)
            else:
                waiting.answer.set_exception(answer)
        if self._queue:
            self._plan(loop)

    def _answers(self, group: Sequence[Steps]) -> list[_Answer]:
        begun = [_proceed(partial(next, steps)) for steps in group]
        outcomes = iter(self._sign([call for call in begun if isinstance(call, Call)]))
        return [
            _finished(steps, next(outcomes)) if isinstance(call, Call) else call
            for steps, call in zip(group, begun, strict=True)
        ]

    def _sign(self, calls: Sequence[Call]) -> list[Outcome | Exception]:
        if not calls:
            return []
        try:
            return [outcome for (outcome,) in self._service.sign_together(calls)]
        except Exception as defect:  # noqa: BLE001 - whoever asked is told
            # Perhaps one request met it, and only one: the others of its group are signed, each by itself.
            return [defect] if len(calls) == 1 else [each for call in calls for each in self._sign([call])]


def _give_up(waiting: _Waiting) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(DeadlineExceededError("the deadline passed while other requests were signed"))


def _proceed(resume: Callable[[], Call]) -> Call | _Answer:
    """Take the steps of one request as far as they go."""
    try:
        return resume()
    except StopIteration as end:
        answer: Response = end.value
        return answer
    except Exception as error:  # noqa: BLE001 - whoever asked is told
        return error


def _finished(steps: Steps, outcome: Outcome | Exception) -> _Answer:
    if isinstance(outcome, Exception):
        steps.close()
        return outcome
    answer = _proceed(partial(steps.send, outcome))
    return RuntimeError("a request asks for a second signature") if isinstance(answer, Call) else answer
