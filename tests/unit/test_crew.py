"""The threads that call into the HSM serve those who wait in turn, whatever each of them brings."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from signer.deadlines import Deadline
from signer.hsm.crew import Crew, Job
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.simulators import raw_signature, simulate

LARGE = 10_000
PATIENCE_S = 20.0


KEY = simulate({"settlement": frozenset()}).key_ring.key("settlement")
TASK = SignTask(KEY, DEFAULT_ALGORITHM, hashlib.sha256(b"a message").digest())


def job_of(count: int) -> Job:
    """So many tasks for one key."""
    return Job([TASK] * count, Deadline.after(PATIENCE_S))


class Turns:
    """What the threads did, in order; nothing is signed until they may begin."""

    def __init__(self) -> None:
        self.taken: list[Job] = []
        self._reached, self._may_begin = threading.Event(), threading.Event()
        # Made once: twenty thousand take longer than a test may wait on a busy machine.
        self._signature = raw_signature(TASK)

    def work(self, job: Job, number: int, task: SignTask) -> None:
        """Stand in for a call into the HSM."""
        self.taken.append(job)
        self._reached.set()
        assert self._may_begin.wait(PATIENCE_S)
        assert task is TASK
        job.answer(number, self._signature)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block go on once a thread is at its first task, and the threads after it."""
        assert self._reached.wait(PATIENCE_S)
        yield
        self._may_begin.set()


def test_one_waits_for_one_of_each_that_came_before() -> None:
    """Behind two jobs of ten thousand, a job of one waits for three signatures, and a job of three takes its turns."""
    turns = Turns()
    crew = Crew(1, turns.work)
    large, other, one, three = job_of(LARGE), job_of(LARGE), job_of(1), job_of(3)
    crew.put(large)
    with turns.held():
        for job in (other, one, three):
            crew.put(job)
    for job in (one, three, large, other):
        assert all(isinstance(answer, RawSignature) for answer in job.wait())
    crew.close(PATIENCE_S)
    assert [turns.taken.index(job) for job in (large, other, one, three)] == [0, 2, 3, 4]
    assert max(index for index, job in enumerate(turns.taken) if job is three) < 12
    assert len(turns.taken) == 2 * LARGE + 4
