"""A fixed number of signing sessions, handed out fairly, newest first; one that failed is never handed out again."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pkcs11
from pkcs11.types import SignMixin

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, PoolExhaustedError
from signer.hsm.module import close_session
from signer.metrics import Metrics


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A private key as one session knows it; its handle may be another key's in any other session."""

    handle: int
    private_key: SignMixin


@dataclass(frozen=True, slots=True)
class SigningSession:
    """A session with the keys that were looked up in it."""

    raw: pkcs11.Session
    handle: int
    keys: dict[str, SessionKey]
    """By key label."""


class SessionPool:
    """Lends signing sessions, each to one thread at a time.

    A session whose use raised anything is closed, and the next borrower of its place opens a new one: so the pool
    heals by being used, and an HSM that is away costs each borrower one attempt.
    """

    def __init__(self, open_session: Callable[[], SigningSession], size: int, metrics: Metrics) -> None:
        self.size = size
        self._open_session = open_session
        self._metrics = metrics
        self._lock = threading.Lock()
        self._idle: list[SigningSession] = []  # a stack: a busy few stay warm, and the rest tell how many are needed
        self._free_places = size
        self._waiters: deque[threading.Event] = deque()  # first come, first served
        self._closed = False

    def warm_up(self, interval_s: float) -> None:
        """Open every session now, `interval_s` apart; raises what opening raises."""
        for number in range(self.size):
            if number:
                time.sleep(interval_s)
            session = self._open_session()
            with self._lock:
                self._idle.append(session)
        self._count()

    @contextmanager
    def borrow(self, deadline: Deadline) -> Iterator[SigningSession]:
        """Lend a session for the block; raises `PoolExhaustedError` if none comes free before `deadline`."""
        self._take_place(deadline)
        session = None
        try:
            session = self._idle_session() or self._open_session()
            yield session
        except BaseException as error:
            self._discard(session, type(error).__name__)
            raise
        else:
            self._put_back(session)
        finally:
            self._leave_place()

    def close(self) -> None:
        """Close the idle sessions; those on loan close when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for session in idle:
            close_session(session.raw)
        self._count()

    def _take_place(self, deadline: Deadline) -> None:
        with self._lock:
            if self._closed:
                msg = "the HSM connection is closed"
                raise HsmUnavailableError(msg)
            if self._free_places and not self._waiters:
                self._free_places -= 1
                return
            turn = threading.Event()
            self._waiters.append(turn)
        if turn.wait(deadline.remaining_s()):
            return
        with self._lock:
            if turn.is_set():  # the place was passed on in the very last moment
                return
            self._waiters.remove(turn)
        msg = f"none of the {self.size} signing sessions came free in time"
        raise PoolExhaustedError(msg)

    def _leave_place(self) -> None:
        with self._lock:
            if self._waiters:
                self._waiters.popleft().set()
            else:
                self._free_places += 1
        self._count()

    def _idle_session(self) -> SigningSession | None:
        with self._lock:
            session = self._idle.pop() if self._idle else None
        self._count()
        return session

    def _put_back(self, session: SigningSession) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
                return
        close_session(session.raw)

    def _discard(self, session: SigningSession | None, reason: str) -> None:
        if session is not None:
            self._metrics.sessions_discarded.labels(reason).inc()
            close_session(session.raw)

    def _count(self) -> None:
        with self._lock:
            idle, busy = len(self._idle), self.size - self._free_places
        self._metrics.sessions.labels("idle").set(idle)
        self._metrics.sessions.labels("busy").set(busy)
