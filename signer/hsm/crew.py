"""Threads that call into the HSM for others: whoever asked can walk away from a call that does not come back."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Final

from signer.deadlines import Deadline
from signer.errors import DeadlineExceededError, PoolExhaustedError, SignerError
from signer.ports import RawSignature, SignTask, let_all_pass

Answer = RawSignature | SignerError
_TURN: Final = object()
_LAST: Final = object()
"""Ends every thread that comes upon it."""


class Job:
    """The tasks of one request, and their answers as they come; the first answer to a task is the one that counts."""

    def __init__(
        self,
        tasks: Sequence[SignTask],
        deadline: Deadline,
        refuse: Callable[[SignTask], None] = let_all_pass,
        *,
        probing: bool = False,
    ) -> None:
        self.size = len(tasks)
        self.deadline = deadline
        self.refuse = refuse
        self.probing = probing
        self.asked_s = time.perf_counter()
        self._pending = deque(enumerate(tasks))
        self._answers: list[Answer | None] = [None] * len(tasks)
        self._unanswered = len(tasks)
        self._defect: BaseException | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()

    def take(self) -> tuple[int, SignTask] | None:
        """Give the next task and its number; None when all are taken."""
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def answer(self, number: int, answer: Answer) -> None:
        """Answer one task."""
        with self._lock:
            if self._answers[number] is None:
                self._answers[number] = answer
                self._unanswered -= 1
                if not self._unanswered:
                    self._done.set()

    def fail(self, defect: BaseException) -> None:
        """End it all with an error that nobody foresaw."""
        with self._lock:
            self._defect = defect
            self._pending.clear()
            self._done.set()

    def wait(self) -> list[Answer]:
        """Give all answers once they are there, or at the deadline.

        What was not begun by then is `PoolExhaustedError`, what was is `DeadlineExceededError`.
        """
        self._done.wait(self.deadline.remaining_s())
        with self._lock:
            if self._defect is not None:
                raise self._defect
            late: SignerError = DeadlineExceededError("the HSM did not answer before the deadline")
            waiting = PoolExhaustedError("no signing session came free before the deadline")
            missing = dict.fromkeys((number for number, _ in self._pending), waiting)
            self._pending.clear()
            return [
                missing.get(number, late) if answer is None else answer for number, answer in enumerate(self._answers)
            ]


class Crew:
    """As many threads as there are signing sessions; they take one task from each job in turn.

    So a single request waits for one signature of every batch before it, not for whole batches.
    """

    def __init__(self, size: int, work: Callable[[Job, int, SignTask], None]) -> None:
        self._work = work
        self._jobs: deque[Job] = deque()
        # One for each task, so that no more threads wake than there is work for.
        self._turns: SimpleQueue[object] = SimpleQueue()
        self._lock = threading.Lock()
        self._closing = False
        self._members: set[threading.Thread] = set()
        for _ in range(size):
            self._hire()

    def put(self, job: Job) -> None:
        """Have a job done."""
        with self._lock:
            self._jobs.append(job)
        for _ in range(job.size):
            self._turns.put(_TURN)

    def replace(self, member: threading.Thread) -> None:
        """Put a new thread in the place of one that hangs; should that one ever come back, it ends."""
        with self._lock:
            if member in self._members and not self._closing:
                self._members.discard(member)
                self._hire()

    def close(self, timeout_s: float) -> None:
        """End the threads when their work is done; those that hang are left behind."""
        with self._lock:
            self._closing = True
            members = list(self._members)
        self._turns.put(_LAST)
        deadline = Deadline.after(timeout_s)
        for member in members:
            member.join(deadline.remaining_s())

    def _hire(self) -> None:
        # Daemons: one that hangs in the module must not keep the process alive.
        member = threading.Thread(target=self._run, name="hsm-signer", daemon=True)
        self._members.add(member)
        member.start()

    def _run(self) -> None:
        member = threading.current_thread()
        while member in self._members:
            if self._turns.get() is _LAST:
                self._turns.put(_LAST)
                return
            taken = self._take()
            if taken is not None:
                self._do(*taken)

    def _do(self, job: Job, number: int, task: SignTask) -> None:
        try:
            self._work(job, number, task)
        except BaseException as defect:  # noqa: BLE001 - it belongs to whoever asked
            job.fail(defect)

    def _take(self) -> tuple[Job, int, SignTask] | None:
        """Take a task from the job whose turn it is; None if all that is left was given up at its deadline."""
        with self._lock:
            while self._jobs:
                job = self._jobs.popleft()
                taken = job.take()
                if taken is not None:
                    self._jobs.append(job)
                    return job, *taken
        return None
