"""A fixed number of signing sessions, handed out fairly, newest first; one that failed is never handed out again."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pkcs11

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, PoolExhaustedError
from signer.hsm.bounded import ends_in_time
from signer.hsm.connection import Lent
from signer.hsm.errors import Fate, HsmFault
from signer.hsm.hung_calls import HungCalls, nobody_waits
from signer.hsm.module import Module, handle_of
from signer.metrics import HsmMetrics

_CLOSING_TIMEOUT_S: Final = 1.0


@dataclass(slots=True, eq=False)
class SigningSession:
    """A session with the keys that were looked up in it."""

    module: Module
    raw: pkcs11.Session
    generation: int
    """Of the connection, when it was opened."""
    keys: dict[str, int]
    """Key label to the private key's handle in this session: it may be another key's in any other."""
    opened_at_s: float = field(default_factory=time.monotonic)
    uses: int = 0
    """How often it was lent."""
    distrusted: bool = False
    """Whether it gave a wrong signature."""

    @property
    def handle(self) -> int:
        """The session's handle."""
        return handle_of(self.raw)

    def close(self) -> None:
        """Close it, unless its module is gone and it went along."""
        self.module.close_session(self.raw)


class SessionPool:
    """Lends signing sessions, each to one thread at a time.

    A session whose use raised anything but a fault that spares it is closed, and so is one of an earlier generation;
    the next borrower of its place opens a new one. So the pool heals by being used.
    """

    def __init__(
        self,
        open_session: Callable[[Lent], SigningSession],
        hung_calls: HungCalls,
        size: int,
        metrics: HsmMetrics,
    ) -> None:
        self.size = size
        self._open_one = open_session
        self._hung_calls = hung_calls
        self._metrics = metrics
        self._lock = threading.Lock()
        self._idle: list[SigningSession] = []  # a stack: a busy few stay warm, and the rest tell how many are needed
        self._free_places = size
        self._waiters: deque[threading.Event] = deque()  # first come, first served
        self._open: set[SigningSession] = set()
        self._closed = False
        # Counted when somebody looks, not with each signature.
        metrics.sessions.labels("idle").set_function(lambda: len(self._idle))
        metrics.sessions.labels("busy").set_function(lambda: len(self._open) - len(self._idle))
        metrics.oldest_session.set_function(self._oldest_s)

    def warm_up(self, lent: Lent, interval_s: float) -> None:
        """Open every session now, `interval_s` apart; raises what opening raises."""
        for number in range(self.size):
            if number:
                time.sleep(interval_s)
            with self._hung_calls.mending(nobody_waits):
                session = self._open_session(lent)
            with self._lock:
                self._idle.append(session)

    @contextmanager
    def borrow(self, lent: Lent, deadline: Deadline, on_hang: Callable[[], None]) -> Iterator[SigningSession]:
        """Lend a session of the module that is `lent`; raises `PoolExhaustedError` if none comes free in time.

        If the block hangs in the module its place goes to a new session, and then `on_hang` is called.
        """
        self._take_place(deadline)

        def give_up() -> None:
            self._leave_place()
            on_hang()

        watch = self._hung_calls.begin(give_up)
        session, reason = None, None
        try:
            session = self._idle_session(lent.generation) or self._open_session(lent)
            session.uses += 1
            yield session
            reason = "distrusted" if session.distrusted else None
        except HsmFault as fault:
            reason = None if fault.rule.fate is Fate.KEEP else fault.rule.name
            raise
        except BaseException:
            reason = "unknown"
            raise
        finally:
            hung = self._hung_calls.end(watch)
            if session is not None and (hung or reason is not None or not self._put_back(session)):
                # Closing may hang like any other call.
                closing = self._hung_calls.begin(on_hang if hung else give_up)
                self._discard(session, "hung" if hung else reason or "closed")
                hung = self._hung_calls.end(closing) or hung
            if not hung:
                self._leave_place()

    def close(self) -> None:
        """Close the idle sessions; those on loan close when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        ends_in_time(lambda: self._close_all(idle), _CLOSING_TIMEOUT_S)

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

    def _idle_session(self, generation: int) -> SigningSession | None:
        while True:
            with self._lock:
                session = self._idle.pop() if self._idle else None
            if session is None:
                return None
            if session.generation == generation:
                return session
            self._discard(session, "generation")

    def _put_back(self, session: SigningSession) -> bool:
        with self._lock:
            if not self._closed:
                self._idle.append(session)
            return not self._closed

    def _discard(self, session: SigningSession, reason: str) -> None:
        self._metrics.sessions_discarded.labels(reason).inc()
        self._close(session)

    def _open_session(self, lent: Lent) -> SigningSession:
        session = self._open_one(lent)
        with self._lock:
            self._open.add(session)
        return session

    def _close_all(self, sessions: Sequence[SigningSession]) -> None:
        for session in sessions:
            self._close(session)

    def _close(self, session: SigningSession) -> None:
        session.close()
        with self._lock:
            self._open.discard(session)
        self._metrics.session_age.observe(time.monotonic() - session.opened_at_s)
        self._metrics.session_uses.observe(session.uses)

    def _oldest_s(self) -> float:
        with self._lock:
            opened = [session.opened_at_s for session in self._open]
        return time.monotonic() - min(opened) if opened else 0.0
