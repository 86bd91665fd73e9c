"""A call into the module that does not come back holds up nobody but itself."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import HsmUnavailableError
from signer.hsm.errors import Fate
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import Opened, OpenKeyRing
from tests.hsm.tap import Tap, tapped

CALL_TIMEOUT_S = 0.3


class Hang:
    """Stops the next calls of C_SignInit until it is let go."""

    def __init__(self, tap: Tap, calls: int) -> None:
        self._left = calls
        self._lock = threading.Lock()
        self._go = threading.Event()
        self.sessions: list[int] = []
        tap.instead["C_SignInit"] = self._stop

    def let_go(self) -> None:
        """Let them come back."""
        self._go.set()

    def _stop(self, real: Callable[..., int], session: int, *arguments: int) -> int:
        with self._lock:
            hangs = self._left > 0
            self._left -= 1
            if hangs:
                self.sessions.append(session)
        if hangs:
            self._go.wait(60)
        return int(real(session, *arguments))


@contextmanager
def hanging(tap: Tap, calls: int) -> Iterator[Hang]:
    """Let the next calls hang for the block."""
    hang = Hang(tap, calls)
    try:
        yield hang
    finally:
        hang.let_go()


def sign(opened: Opened, count: int = 1) -> list[object]:
    """Sign digests that differ, with a deadline far away."""
    key = opened.key_ring.key("settlement")
    tasks = [SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest()) for number in range(count)]
    return list(opened.key_ring.sign(tasks, Deadline.after(60)))


def hung(opened: Opened) -> float:
    """How many calls hang, as the metrics have it."""
    return opened.metrics.registry.get_sample_value("signer_hsm_hung_calls") or 0


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = Deadline.after(30)
    while not true():
        deadline.check()
        time.sleep(0.02)


def test_a_call_that_hangs_is_given_up(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """The caller gets its answer long before its deadline; others are signed meanwhile, on other sessions."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1) as hang:
            (answered,) = sign(opened)
            assert isinstance(answered, HsmUnavailableError)
            assert answered.message == "a call into the HSM does not come back"
            tap.sessions_signed.clear()
            assert all(isinstance(answered, RawSignature) for answered in sign(opened, 20))
            assert hung(opened) == 1
            assert not set(hang.sessions) & set(tap.sessions_signed)


def test_its_session_is_not_used_even_if_it_comes_back(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A call that comes back after all has its session closed and its thread ended, and counts as hung no longer."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        threads = threading.active_count()
        with hanging(tap, 1) as hang:
            sign(opened)
            assert threading.active_count() == threads + 1
            hang.let_go()
            until(lambda: hung(opened) == 0 and threading.active_count() == threads)
            tap.sessions_signed.clear()
            sign(opened, 20)
            assert not set(hang.sessions) & set(tap.sessions_signed)
            assert opened.discarded() == 1


def test_one_hung_call_does_not_hold_up_its_batch(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Of a batch all but the transaction that hangs are signed."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1):
            answers = sign(opened, 50)
        assert sum(isinstance(answered, RawSignature) for answered in answers) == 49


def test_when_too_many_hang_the_process_ends_itself(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Up to as many as there are sessions may hang; with one more, the breaker is open and the end is called for."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 3):
            sign(opened, 2)
            assert not opened.ended.is_set()
            sign(opened, 1)
            assert opened.ended.wait(30)
            assert opened.key_ring.problems()


def test_nothing_is_finalised_under_a_hung_call(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A rebuild is refused at once while a call hangs: finalising would pull the module from under it."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1):
            sign(opened)
            generation = opened.connection.generation
            opened.connection.mend(Fate.REBUILD, generation)
            with pytest.raises(HsmUnavailableError, match="cannot be rebuilt while a call into the module hangs"):
                opened.connection.mend(Fate.REBUILD, generation)
            assert tap.calls["C_Finalize"] == 0
