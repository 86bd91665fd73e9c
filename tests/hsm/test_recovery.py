"""The HSM forgets, refuses, tires and goes away; the key ring signs on, or says why not."""

import hashlib
import threading
import time
from collections.abc import Iterator

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import DeadlineExceededError, HsmUnavailableError
from signer.hsm.module import handle_of
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM, verifies
from tests.hsm.conftest import Opened, OpenKeyRing, until
from tests.hsm.tap import CKR_DEVICE_ERROR, Tap, answer, close_all_sessions, finalize, log_out, once, tapped

CKR_GENERAL_ERROR = 0x005
CKR_FUNCTION_FAILED = 0x006
CKR_ARGUMENTS_BAD = 0x007
CKR_SESSION_HANDLE_INVALID = 0x0B3


def tasks_for(opened: Opened, count: int) -> list[SignTask]:
    """Digests that differ."""
    key = opened.key_ring.key("settlement")
    return [SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest()) for number in range(count)]


def sign(opened: Opened, count: int, timeout_s: float = 60) -> list[object]:
    """Sign, and give for each True where the signature verifies, else the error."""
    tasks = tasks_for(opened, count)
    return [
        verifies(task.key.public_key, task.algorithm, task.digest, answered.value)
        if isinstance(answered, RawSignature)
        else answered
        for task, answered in zip(tasks, opened.key_ring.sign(tasks, Deadline.after(timeout_s)), strict=True)
    ]


def lose_the_login(opened: Opened, softhsm: Token) -> None:
    """Log out behind the key ring's back."""
    with opened.connection.lend(Deadline.after(30)) as lent:
        session = lent.module.open_session()
        log_out(softhsm.module, handle_of(session))
        lent.module.close_session(session)


def lose_all_sessions(opened: Opened, softhsm: Token) -> None:
    """Close every session behind the key ring's back."""
    with opened.connection.lend(Deadline.after(30)) as lent:
        close_all_sessions(softhsm.module, lent.module.token.slot.slot_id)


def lose_the_module(_opened: Opened, softhsm: Token) -> None:
    """Finalise the module behind the key ring's back."""
    finalize(softhsm.module)


@pytest.mark.parametrize("lose", [lose_the_login, lose_all_sessions, lose_the_module], ids=lambda lose: lose.__name__)
def test_what_was_lost_is_won_back(open_key_ring: OpenKeyRing, softhsm: Token, lose: object) -> None:
    """Every request that comes after the loss is signed, on sessions that were opened since."""
    assert callable(lose)
    opened = open_key_ring(sessions=4)
    assert sign(opened, 8) == [True] * 8
    lose(opened, softhsm)
    assert sign(opened, 100) == [True] * 100
    assert opened.key_ring.problems() == ()


def test_a_lost_login_is_renewed_once_for_all(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Sixteen threads that find the login gone at the same time make one C_Login."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=16)
        lose_the_login(opened, softhsm)
        before = tap.calls["C_Login"]
        assert sign_from_threads(opened, 16) == [True] * 16
        assert tap.calls["C_Login"] == before + 1


def test_a_lost_module_is_rebuilt_once_for_all(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Sixteen threads that find the module gone at the same time initialise it once."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=16)
        finalize(softhsm.module)
        before = tap.calls["C_Initialize"]
        assert sign_from_threads(opened, 16) == [True] * 16
        assert tap.calls["C_Initialize"] == before + 1


def sign_from_threads(opened: Opened, count: int) -> list[object]:
    """Sign one digest from each of many threads that start together."""
    barrier, answers = threading.Barrier(count), []

    def work() -> None:
        barrier.wait(30)
        answers.extend(sign(opened, 1))

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def failing_times(tap: Tap, function: str, code: int, times: int) -> None:
    """Let the next `times` calls of a function fail."""
    left = [code] * times
    lock = threading.Lock()

    def strike(real: object, *arguments: object) -> int:
        assert callable(real)
        with lock:
            failing = left.pop() if left else None
        return int(real(*arguments)) if failing is None else failing

    tap.instead[function] = strike


def test_throttling_is_waited_out_on_the_same_session(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """CKR_FUNCTION_FAILED is tried again until it passes: no session is closed, nothing is rebuilt."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        before = dict(tap.calls)
        failing_times(tap, "C_SignInit", CKR_FUNCTION_FAILED, 7)
        assert sign(opened, 1) == [True]
        assert tap.calls["C_SignInit"] == before.get("C_SignInit", 0) + 8
        assert [tap.calls[name] for name in ("C_CloseSession", "C_Login", "C_Initialize")] == [
            before.get(name, 0) for name in ("C_CloseSession", "C_Login", "C_Initialize")
        ]
        assert opened.discarded() == 0


def test_throttling_ends_with_the_deadline(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Who is throttled for longer than the request lasts is told that the deadline passed."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        tap.instead["C_SignInit"] = answer(CKR_FUNCTION_FAILED)
        (answered,) = sign(opened, 1, timeout_s=0.2)
        assert isinstance(answered, DeadlineExceededError)


def test_throttling_does_not_use_up_the_tries(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Waited out however often, then a session that died: that is the first fault of the request, not the tenth."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        codes = iter([CKR_FUNCTION_FAILED] * 9 + [CKR_SESSION_HANDLE_INVALID] * 3)
        tap.instead["C_SignInit"] = lambda real, *arguments: next(codes, None) or int(real(*arguments))
        assert sign(opened, 1) == [True]


def test_throttling_may_last(open_key_ring: OpenKeyRing, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand times, as over an hour of it: the pause stays bounded."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        failing_times(tap, "C_SignInit", CKR_FUNCTION_FAILED, 2_000)
        assert sign(opened, 1) == [True]


def test_when_nothing_but_throttling_comes_the_breaker_opens(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Requests that end so must not go on spending the receives of their batches; one signature in between helps."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        for _ in range(2):
            tap.instead["C_SignInit"] = answer(CKR_FUNCTION_FAILED)
            sign(opened, 1, timeout_s=0.1)
            sign(opened, 1, timeout_s=0.1)
            assert opened.key_ring.problems() == ()
            tap.instead.clear()
            assert sign(opened, 1) == [True]
        tap.instead["C_SignInit"] = answer(CKR_FUNCTION_FAILED)
        for _ in range(3):
            sign(opened, 1, timeout_s=0.1)
        # Whoever waits is answered at the deadline, whatever the thread that asks the HSM finds out at that moment.
        until(lambda: opened.key_ring.problems() != ())
        assert opened.key_ring.problems()[0].startswith("the HSM does not sign: throttled: ")


def test_a_throttled_login_is_waited_out(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """It is no reason to take the module down."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2)
        initialised = tap.calls["C_Initialize"]
        lose_the_login(opened, softhsm)
        failing_times(tap, "C_Login", CKR_FUNCTION_FAILED, 3)
        assert sign(opened, 4) == [True] * 4
        assert tap.calls["C_Initialize"] == initialised


def test_a_throttled_read_is_waited_out(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """CloudHSM throttles C_GetAttributeValue with CKR_DEVICE_ERROR, which elsewhere means that the device is gone."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        initialised = tap.calls["C_Initialize"]
        tap.instead["C_SignInit"] = once(answer(CKR_SESSION_HANDLE_INVALID))
        failing_times(tap, "C_GetAttributeValue", CKR_DEVICE_ERROR, 8)
        assert sign(opened, 1) == [True]
        assert tap.calls["C_Initialize"] == initialised


@pytest.mark.parametrize("code", [CKR_GENERAL_ERROR, CKR_DEVICE_ERROR])
def test_one_stumble_does_not_rebuild_the_module(open_key_ring: OpenKeyRing, softhsm: Token, code: int) -> None:
    """A device fault of a single session costs that session; the request is signed on another, the rest goes on."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=4)
        initialised = tap.calls["C_Initialize"]
        tap.instead["C_SignInit"] = once(answer(code))
        assert sign(opened, 1) == [True]
        assert (opened.discarded(), tap.calls["C_Initialize"]) == (1, initialised)


def test_a_module_that_did_not_finalise_is_finalised_again(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """It then says that it is initialised already, which it is, by us and with locking: that must not be the end."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2)
        stumbles = iter([CKR_DEVICE_ERROR] * 2)
        tap.instead["C_Sign"] = lambda real, *arguments: next(stumbles, None) or real(*arguments)
        tap.instead["C_Finalize"] = once(answer(CKR_GENERAL_ERROR))
        assert sign(opened, 1) == [True]
        assert (opened.connection.generation, tap.calls["C_Finalize"]) == (1, 2)


def test_what_no_try_can_cure_is_not_tried_again(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A code that nothing of ours should ever get costs one call and its session, and is answered at once."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        before = tap.calls["C_SignInit"]
        tap.instead["C_SignInit"] = answer(CKR_ARGUMENTS_BAD)
        (answered,) = sign(opened, 1)
        assert isinstance(answered, HsmUnavailableError)
        assert tap.calls["C_SignInit"] == before + 1
        assert opened.discarded() == 1


def test_while_the_device_is_away_only_probes_reach_it(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """The breaker opens after a few failures, answers everyone else at once, and one probe that verifies closes it."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2)
        for function in ("C_SignInit", "C_OpenSession", "C_Initialize"):
            tap.instead[function] = answer(CKR_DEVICE_ERROR)
        for _ in range(3):
            assert isinstance(sign(opened, 1)[0], HsmUnavailableError)
        assert opened.key_ring.problems()
        calls = sum(tap.calls.values())
        assert all(isinstance(answered, HsmUnavailableError) for answered in sign(opened, 50))
        assert sum(tap.calls.values()) == calls
        tap.instead.clear()
        assert opened.key_ring.problems()
        assert any(isinstance(outcome, RawSignature) for outcome in probes(opened))
        assert opened.key_ring.problems() == ()
        assert sign(opened, 50) == [True] * 50


def probes(opened: Opened) -> Iterator[object]:
    """Probe again and again for a while, as readiness does."""
    for _ in range(100):
        yield opened.key_ring.sign(tasks_for(opened, 1), Deadline.after(30), probing=True)[0]
        time.sleep(0.05)


def test_an_old_session_is_not_closed_in_a_new_module(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Session handles begin anew with the module: closing an old one would close somebody else's new one."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=8)
        finalize(softhsm.module)
        assert sign(opened, 1) == [True]
        closed = tap.calls["C_CloseSession"]
        assert sign(opened, 200) == [True] * 200
        assert tap.calls["C_CloseSession"] == closed
