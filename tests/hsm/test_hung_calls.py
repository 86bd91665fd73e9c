"""A call into the module that does not come back holds up nobody but itself."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import HsmUnavailableError
from signer.hsm.errors import Fate
from signer.hsm.hung_calls import HungCalls
from signer.metrics import Metrics
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import Opened, OpenKeyRing, journal_of, spec, until
from tests.hsm.tap import CKR_DEVICE_ERROR, Tap, finalize, tapped
from tests.hsm.test_recovery import failing_times, lose_the_login

CALL_TIMEOUT_S = 0.3
CKR_SESSION_CLOSED = 0x0B0


class Hang:
    """Stops the next calls of a function until it is let go."""

    def __init__(self, tap: Tap, calls: int, function: str) -> None:
        self._left = calls
        self._passing = 0
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._back = threading.Semaphore(0)
        self._held = 0
        self.sessions: list[int] = []
        tap.instead[function] = self._stop

    def passes(self, calls: int) -> None:
        """Let so many calls pass first."""
        self._passing = calls

    def let_go(self) -> None:
        """Let them come back, and see them do so."""
        self._go.set()
        while self._held:
            assert self._back.acquire(timeout=30)
            self._held -= 1

    def _stop(self, real: Callable[..., int], *arguments: int) -> int:
        with self._lock:
            hangs = self._left > 0 and not self._passing
            self._passing = max(0, self._passing - 1)
            self._left -= hangs
            if hangs:
                self._held += 1
                self.sessions.append(arguments[0])
        if hangs:
            self._go.wait(60)
            self._back.release()
        return int(real(*arguments))


@contextmanager
def hanging(tap: Tap, calls: int, function: str = "C_SignInit") -> Iterator[Hang]:
    """Let the next calls hang for the block."""
    hang = Hang(tap, calls, function)
    try:
        yield hang
    finally:
        hang.let_go()


def sign(opened: Opened, count: int = 1, *, probing: bool = False) -> list[object]:
    """Sign digests that differ, with a deadline far away."""
    key = opened.key_ring.key("settlement")
    tasks = [SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest()) for number in range(count)]
    return list(opened.key_ring.sign(tasks, Deadline.after(60), probing=probing))


def hung(opened: Opened) -> float:
    """How many calls hang, as the metrics have it."""
    return opened.metrics.registry.get_sample_value("signer_hsm_hung_calls") or 0


def test_a_call_that_hangs_is_given_up(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """The caller gets its answer long before its deadline; others are signed meanwhile, on other sessions."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
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
    """With as many as there are sessions the breaker is open at once; with one more the end is called for."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 3):
            sign(opened, 2)
            assert opened.key_ring.problems() == (
                "the HSM does not sign: hung: a call into the HSM does not come back",
            )
            signed = tap.calls["C_SignInit"]
            assert all(isinstance(answered, HsmUnavailableError) for answered in sign(opened, 10))
            assert (tap.calls["C_SignInit"], opened.ended.is_set()) == (signed, False)
            sign(opened, probing=True)
            assert opened.ended.wait(30)


@pytest.mark.parametrize("function", ["C_Login", "C_Initialize", "C_Finalize", "C_OpenSession", "C_CloseSession"])
def test_any_call_may_hang(open_key_ring: OpenKeyRing, softhsm: Token, function: str) -> None:
    """Those that mend are watched like those that sign; nothing else helps them than the end of the process."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        finds = {"C_Login": 0x101, "C_CloseSession": 0xB0, "C_OpenSession": 0xB0}.get(function, CKR_DEVICE_ERROR)
        with hanging(tap, 1, function):
            failing_times(tap, "C_SignInit", finds, 2)
            (answered,) = sign(opened)
            assert isinstance(answered, HsmUnavailableError)
            assert answered.message == "a call into the HSM does not come back"
            if function in {"C_OpenSession", "C_CloseSession"}:
                assert all(isinstance(answered, RawSignature) for answered in sign(opened, 20))
                assert not opened.ended.is_set()
            else:
                assert opened.key_ring.problems()
                assert opened.ended.wait(30)


def test_who_was_answered_meanwhile_is_not_signed_for(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A login that comes back after all is good for those who come next; its caller may have gone elsewhere."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1, "C_Login") as hang:
            lose_the_login(opened, softhsm)
            sign(opened)
            signed = tap.calls["C_Sign"]
            hang.let_go()
            until(lambda: hung(opened) == 0)
            assert all(isinstance(answered, RawSignature) for answered in sign(opened, 5, probing=True))
            assert tap.calls["C_Sign"] == signed + 5


def test_a_check_of_the_keys_that_hangs_holds_up_nobody(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Readiness goes on without it."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1, "C_FindObjectsInit"):
            opened.key_ring.check_keys()
            assert hung(opened) == 1
            assert all(isinstance(answered, RawSignature) for answered in sign(opened, 20))


def test_many_calls_that_are_quick_are_not_one_that_hangs(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """At start, on the timer and for a new session looking at many keys may take longer than one call may."""
    specs = [spec(alias=f"settlement-{number}") for number in range(39)]

    def slowly(real: Callable[..., int], *arguments: int) -> int:
        time.sleep(0.003)
        return int(real(*arguments))

    with tapped(softhsm.module) as tap:
        tap.instead["C_GetAttributeValue"] = slowly
        opened = open_key_ring(spec(), *specs, sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        failing_times(tap, "C_SignInit", CKR_SESSION_CLOSED, 1)
        assert all(isinstance(answered, RawSignature) for answered in sign(opened))
        opened.key_ring.check_keys()
        until(lambda: opened.metrics.registry.get_sample_value("signer_sessions", {"state": "busy"}) == 0)
        assert opened.metrics.registry.get_sample_value("signer_hsm_abandoned_calls_total") == 0
        assert not opened.ended.is_set()


@pytest.mark.parametrize("warm", [False, True], ids=["checking keys", "opening sessions"])
def test_a_start_that_hangs_ends_the_process(open_key_ring: OpenKeyRing, softhsm: Token, warm: bool) -> None:  # noqa: FBT001 - a parameter
    """Nobody could ask it anything, nor would it ever be ready."""
    ended = threading.Event()
    with tapped(softhsm.module) as tap, hanging(tap, 1, "C_FindObjectsInit") as hang:
        if warm:
            hang.passes(1)
        start = partial(open_key_ring, sessions=1, call_timeout_s=CALL_TIMEOUT_S, ended=ended)
        starting = threading.Thread(target=start)
        starting.start()
        assert ended.wait(30)
        hang.let_go()
        starting.join()


def test_calls_that_cannot_be_watched_any_more_end_the_process() -> None:
    """As when the system has no thread left to take the place of the one that hangs: nothing would be noticed then."""

    def no_thread() -> None:
        raise RuntimeError

    ended = threading.Event()
    with closing(HungCalls(CALL_TIMEOUT_S, 1, ended.set, journal_of(Metrics(CollectorRegistry())))) as hung_calls:
        hung_calls.begin(no_thread)
        assert ended.wait(30)


def test_closing_waits_for_no_call_that_hangs(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """The process could not end otherwise."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1, "C_CloseSession") as hang:
            opened.key_ring.close()
            assert tap.calls["C_CloseSession"]
            hang.let_go()
        with hanging(tap, 1, "C_Finalize"):
            opened.connection.close()
            assert tap.calls["C_Finalize"] == 1


def test_a_call_that_never_comes_back_does_not_bar_the_rebuild_for_ever(
    open_key_ring: OpenKeyRing, softhsm: Token
) -> None:
    """The module cannot be finalised under it; then another process has to go on."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1):
            sign(opened)
            finalize(softhsm.module)
            until(lambda: not isinstance(sign(opened, probing=True)[0], RawSignature) and opened.ended.is_set())


def test_nothing_is_finalised_under_a_hung_call(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A rebuild is refused at once while a call hangs: finalising would pull the module from under it."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, call_timeout_s=CALL_TIMEOUT_S)
        with hanging(tap, 1):
            sign(opened)
            generation = opened.connection.generation
            opened.connection.mend(Fate.REBUILD, generation, Deadline.after(30))
            with pytest.raises(HsmUnavailableError, match="cannot be rebuilt while a call into the module hangs"):
                opened.connection.mend(Fate.REBUILD, generation, Deadline.after(30))
            assert tap.calls["C_Finalize"] == 0
