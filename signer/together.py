"""Lets requests that come one by one be signed together: one commit, one audit write, one call of the HSM for many."""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from signer.errors import DeadlineExceededError
from signer.signing import Call, SigningService
from signer.work import Outcome, Refused

_MOST: Final = 64


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that came while as many groups as may be were under way."""

    call: Call
    turn: threading.Event = field(default_factory=threading.Event)
    """Set once there is an outcome, or it is to lead a group."""
    outcome: Outcome | None = None
    alone: bool = False
    """Whether it is to go by itself: something went wrong with its group, and perhaps with one request only."""


class Together:
    """As many groups are under way as there are signing sessions; who comes then joins the next one.

    The first of a group has all of it signed, on its own thread. So nobody waits for company while a session is free,
    and the more requests there are, the less each of them costs.
    """

    def __init__(self, service: SigningService, groups: int) -> None:
        self._service = service
        self._free = groups
        self._lock = threading.Lock()
        self._queue: deque[_Waiting] = deque()

    def sign(self, call: Call) -> Outcome:
        """Sign one request; an error is its outcome, and only what nobody foresaw is raised."""
        with self._lock:
            leads = self._free > 0
            if leads:
                self._free -= 1
            else:
                waiting = _Waiting(call)
                self._queue.append(waiting)
        return self._lead(call) if leads else self._follow(waiting)

    def _follow(self, waiting: _Waiting) -> Outcome:
        if not waiting.turn.wait(waiting.call.deadline.remaining_s()) and self._withdraw(waiting):
            return Refused(DeadlineExceededError("the deadline passed while other requests were signed"))
        # Its group ends soon: it keeps to the earliest deadline in it.
        waiting.turn.wait()
        if waiting.outcome is not None:
            return waiting.outcome
        return self._alone(waiting.call) if waiting.alone else self._lead(waiting.call)

    def _withdraw(self, waiting: _Waiting) -> bool:
        with self._lock:
            found = waiting in self._queue
            if found:
                self._queue.remove(waiting)
        return found

    def _lead(self, call: Call) -> Outcome:
        with self._lock:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST - 1))]
        try:
            outcome, *outcomes = self._service.sign_together([call, *(each.call for each in group)])
        except Exception:
            for each in group:
                each.alone = True
                each.turn.set()
            if not group:
                raise
            return self._alone(call)
        else:
            for each, found in zip(group, outcomes, strict=True):
                each.outcome = found
                each.turn.set()
            return outcome
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().turn.set()
            else:
                self._free += 1

    def _alone(self, call: Call) -> Outcome:
        (outcome,) = self._service.sign_together([call])
        return outcome
