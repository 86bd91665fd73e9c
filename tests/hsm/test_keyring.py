"""Signatures come from the right key, through healthy sessions only, spread over all of them."""

import hashlib
import threading

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import DeadlineExceededError, HsmUnavailableError, PoolExhaustedError, UnknownKeyError
from signer.ports import RawSignature, SigningKey, SignTask
from signer.signatures import ALGORITHMS, DEFAULT_ALGORITHM, Algorithm, verifies
from tests.hsm.conftest import SECOND_LABEL, OpenKeyRing, spec
from tests.hsm.tap import CKR_DEVICE_ERROR, CKR_HOST_MEMORY, answer, once, tapped


def tasks_for(key: SigningKey, count: int, algorithm: Algorithm = DEFAULT_ALGORITHM) -> list[SignTask]:
    """Digests that differ, for one key."""
    return [SignTask(key, algorithm, hashlib.sha256(str(number).encode()).digest()) for number in range(count)]


def sound(task: SignTask, answered: object) -> bool:
    """Whether a task was answered with its own signature."""
    return isinstance(answered, RawSignature) and verifies(
        task.key.public_key, task.algorithm, task.digest, answered.value
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_answers_come_in_the_order_of_the_tasks(open_key_ring: OpenKeyRing, algorithm: Algorithm) -> None:
    """Each of many digests, signed on several sessions at once, gets its own signature."""
    key_ring = open_key_ring(sessions=4).key_ring
    tasks = tasks_for(key_ring.key("settlement"), 200, algorithm)
    answers = key_ring.sign(tasks, Deadline.after(60))
    assert all(sound(task, answered) for task, answered in zip(tasks, answers, strict=True))


def test_two_keys_are_never_mixed_up(open_key_ring: OpenKeyRing) -> None:
    """Tasks for two keys in turn, spread over sessions that each have their own handles, verify with their own key."""
    key_ring = open_key_ring(spec(), spec(SECOND_LABEL, alias="payout"), sessions=4).key_ring
    pairs = zip(tasks_for(key_ring.key("settlement"), 100), tasks_for(key_ring.key("payout"), 100), strict=True)
    tasks = [task for pair in pairs for task in pair]
    answers = key_ring.sign(tasks, Deadline.after(60))
    assert all(sound(task, answered) for task, answered in zip(tasks, answers, strict=True))


def test_the_module_is_called_twice_for_a_signature(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """C_SignInit and C_Sign, and nobody asks for its size first."""
    with tapped(softhsm.module) as tap:
        key_ring = open_key_ring().key_ring
        before = tap.calls.copy()
        answers = key_ring.sign(tasks_for(key_ring.key("settlement"), 20), Deadline.after(30))
        assert all(isinstance(answered, RawSignature) for answered in answers)
        assert tap.calls - before == {"C_SignInit": 20, "C_Sign": 20}


def test_an_unknown_alias_is_refused(open_key_ring: OpenKeyRing) -> None:
    """There is no default key."""
    with pytest.raises(UnknownKeyError):
        open_key_ring(warm=False).key_ring.key("Settlement")


def test_a_session_that_failed_is_never_used_again(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """After an error in C_Sign its session is closed; the next try and every later one are made on other sessions."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2)
        key = opened.key_ring.key("settlement")
        tap.instead["C_Sign"] = once(answer(CKR_DEVICE_ERROR))
        (answered,) = opened.key_ring.sign(tasks_for(key, 1), Deadline.after(30))
        assert isinstance(answered, RawSignature)
        assert opened.discarded() == 1
        bad_session, good_session = tap.sessions_signed
        assert bad_session != good_session
        tap.sessions_signed.clear()
        answers = opened.key_ring.sign(tasks_for(key, 50), Deadline.after(30))
        assert all(isinstance(answered, RawSignature) for answered in answers)
        assert bad_session not in tap.sessions_signed


def test_a_lost_session_is_replaced(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """When every session fails until its request gives up, each is replaced by use; none is lost for good."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=2)
        key = opened.key_ring.key("settlement")
        tap.instead["C_SignInit"] = answer(CKR_HOST_MEMORY)
        failed = opened.key_ring.sign(tasks_for(key, 2), Deadline.after(30))
        assert all(isinstance(answered, HsmUnavailableError) for answered in failed)
        del tap.instead["C_SignInit"]
        answers = opened.key_ring.sign(tasks_for(key, 8), Deadline.after(30))
        assert all(isinstance(answered, RawSignature) for answered in answers)


def test_no_session_before_the_deadline_is_an_answer(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A request that gets no session in time is told so, and the one that holds it is not disturbed."""
    entered, leave = threading.Event(), threading.Event()

    def slow(real: object, *arguments: object) -> int:
        entered.set()
        assert leave.wait(30)
        assert callable(real)
        return int(real(*arguments))

    with tapped(softhsm.module) as tap:
        key_ring = open_key_ring(sessions=1).key_ring
        tasks = tasks_for(key_ring.key("settlement"), 1)
        tap.instead["C_SignInit"] = once(slow)
        answers: list[object] = []
        holder = threading.Thread(target=lambda: answers.extend(key_ring.sign(tasks, Deadline.after(60))))
        holder.start()
        assert entered.wait(30)
        (waited,) = key_ring.sign(tasks, Deadline.after(0.05))
        leave.set()
        holder.join(30)
    assert isinstance(waited, PoolExhaustedError)
    assert sound(tasks[0], answers[0])


def test_work_past_its_deadline_is_not_begun(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Once the deadline has passed no C_Sign is made for it."""
    with tapped(softhsm.module) as tap:
        key_ring = open_key_ring().key_ring
        answers = key_ring.sign(tasks_for(key_ring.key("settlement"), 5), Deadline.after(0))
        assert all(isinstance(answered, DeadlineExceededError) for answered in answers)
        assert tap.calls["C_Sign"] == 0


def test_a_single_request_does_not_wait_for_a_whole_batch(open_key_ring: OpenKeyRing) -> None:
    """Sessions are lent for one signature: a request that comes during a batch is done long before the batch is."""
    key_ring = open_key_ring(sessions=1).key_ring
    tasks = tasks_for(key_ring.key("settlement"), 1000)
    done: list[str] = []
    started = threading.Event()

    def batch() -> None:
        started.set()
        key_ring.sign(tasks, Deadline.after(60))
        done.append("batch")

    worker = threading.Thread(target=batch)
    worker.start()
    assert started.wait(30)
    key_ring.sign(tasks[:1], Deadline.after(60))
    done.append("single")
    worker.join(60)
    assert done == ["single", "batch"]


def test_read_write_sessions_only(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Every session is opened with CKF_RW_SESSION: CloudHSM refuses read-only ones."""
    flags: list[int] = []

    def look(real: object, slot: int, session_flags: int, *rest: object) -> int:
        flags.append(session_flags)
        assert callable(real)
        return int(real(slot, session_flags, *rest))

    with tapped(softhsm.module) as tap:
        tap.instead["C_OpenSession"] = look
        open_key_ring(sessions=3)
    assert len(flags) == 5
    assert set(flags) == {0x2 | 0x4}


def test_every_session_looks_its_keys_up_itself(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """None signs by a handle that another one found: on CloudHSM it means nothing there, or another key."""
    searched: list[int] = []

    def look(real: object, session: int, *rest: object) -> int:
        searched.append(session)
        assert callable(real)
        return int(real(session, *rest))

    with tapped(softhsm.module) as tap:
        key_ring = open_key_ring(sessions=4, warm=False).key_ring
        tap.instead["C_FindObjectsInit"] = look
        answers = key_ring.sign(tasks_for(key_ring.key("settlement"), 200), Deadline.after(60))
    assert all(isinstance(answered, RawSignature) for answered in answers)
    assert len(set(tap.sessions_signed)) > 1
    assert sorted(set(tap.sessions_signed)) == sorted(searched)
