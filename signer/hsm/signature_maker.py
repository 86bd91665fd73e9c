"""Makes one signature: borrows a session, signs, and mends what it finds broken, until the deadline."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from signer.deadlines import Deadline
from signer.errors import DeadlineExceededError, HsmUnavailableError, LoginRefusedError, SignerError
from signer.hsm.breaker import Breaker, Trouble
from signer.hsm.connection import Connection
from signer.hsm.cryptoki import CKR_OK
from signer.hsm.errors import NOT_FOUND, HsmFault, rule_of
from signer.hsm.key_finder import KeyFinder
from signer.hsm.module import Module
from signer.hsm.session_pool import SessionPool, SigningSession
from signer.metrics import HsmMetrics
from signer.ports import RawSignature, SignTask, let_all_pass
from signer.signatures import verifies

_TRIES_BEYOND_SESSIONS: Final = 4
_THROTTLE_PAUSE_S: Final = 0.01
_LONGEST_THROTTLE_PAUSE_S: Final = 0.5
_DOUBLINGS: Final = 6
LOOKS_FOR_A_KEY: Final = 2
"""So often it must not be found, while the login stands, to count as absent."""


@dataclass(slots=True)
class Request:
    """What every try to make one signature needs to know."""

    deadline: Deadline
    asked_s: float
    """When it was asked for, on `time.perf_counter`."""
    on_hang: Callable[[], None]
    refuse: Callable[[SignTask], None] = let_all_pass
    """Raises what a try must not be made for."""
    given_up: bool = False
    """Whether it was answered without us, since a call hung."""

    def check(self) -> None:
        """Raise `SignerError` if nobody waits for the answer any more."""
        self.deadline.check()
        if self.given_up:
            msg = "a call into the HSM came back too late"
            raise HsmUnavailableError(msg)


class SignatureMaker:
    """Knows the way to the HSM and what to do when it is lost."""

    def __init__(
        self,
        connection: Connection,
        pool: SessionPool,
        breaker: Breaker,
        finder: KeyFinder,
        metrics: HsmMetrics,
    ) -> None:
        self._connection = connection
        self._finder = finder
        self._pool = pool
        self._breaker = breaker
        self._metrics = metrics

    def make(self, task: SignTask, request: Request) -> RawSignature:
        """Try until the deadline while the HSM is throttled, and a few times after anything else that may pass.

        One that does not verify is answered too, and its session is closed. Raises `SignerError`.
        """
        throttles, faults, absences = 0, 0, 0
        while True:
            self._check(request, throttles)
            request.refuse(task)
            generation = self._connection.generation
            try:
                return self._sign_once(task, request)
            except HsmFault as caught:
                found = caught
            self._metrics.retries.labels(found.rule.name).inc()
            if not found.throttled:
                faults += 1
                found = self._mend_or_give_up(found, generation, faults, request)
            if found.throttled:
                throttles += 1
                self._wait(throttles, request.deadline)
            elif found.rule is NOT_FOUND and self._connection.generation == generation:
                # The login stood before and after the key was looked up.
                absences += 1
                if absences == LOOKS_FOR_A_KEY:
                    raise self._finder.lose(task.key)

    def _check(self, request: Request, throttles: int) -> None:
        try:
            request.check()
        except DeadlineExceededError:
            if throttles:
                # One late answer is the caller's; several in a row without a signature are the HSM's.
                self._breaker.failed(Trouble.THROTTLED, f"throttled {throttles} times until the deadline")
            raise

    def _mend_or_give_up(self, found: HsmFault, generation: int, faults: int, request: Request) -> HsmFault:
        """Mend, and give what there is to wait for: `found`, or a login that was throttled; raises `SignerError`."""
        # When all sessions died at once, one request may meet every one of them before it gets a new one.
        if not found.rule.retry or faults >= self._pool.size + _TRIES_BEYOND_SESSIONS:
            self._breaker.failed(Trouble.ERROR, str(found))
            raise found.error from None
        try:
            self._connection.mend(found.rule.fate, generation, request.deadline, request.on_hang)
        except HsmFault as throttled:
            return throttled
        except SignerError as error:
            trouble = Trouble.LOGIN if isinstance(error, LoginRefusedError) else Trouble.LOST
            self._breaker.failed(trouble, error.message)
            raise
        return found

    def _wait(self, throttles: int, deadline: Deadline) -> None:
        self._metrics.throttles.inc()
        longest_s = min(_THROTTLE_PAUSE_S * 2 ** min(throttles, _DOUBLINGS), _LONGEST_THROTTLE_PAUSE_S)
        time.sleep(min(random.uniform(0, longest_s), deadline.remaining_s()))  # noqa: S311 - jitter is no secret

    def _sign_once(self, task: SignTask, request: Request) -> RawSignature:
        with (
            self._connection.lend(request.deadline) as lent,
            # Borrowed for one signature only, so that a single request need not wait for a whole batch.
            self._pool.borrow(lent, request.deadline, request.on_hang) as session,
        ):
            signature = self._sign_in(lent.module, session, task, request)
            if not signature.sound:
                session.distrusted = True
                self._breaker.wrong_signature()
                return signature
        self._connection.worked()
        self._breaker.verified()
        return signature

    def _sign_in(self, module: Module, session: SigningSession, task: SignTask, request: Request) -> RawSignature:
        algorithm = task.algorithm
        key_handle = self._finder.handle_in(session, task.key)
        began_s = time.perf_counter()
        code, value = module.signing.sign(
            session.handle, key_handle, algorithm.mechanism, algorithm.hsm_input(task.digest)
        )
        if code != CKR_OK:
            raise HsmFault(rule_of(code), "C_Sign")
        signed_s = time.perf_counter()
        # Before the session is lent again: one that lies must not do so twice.
        sound = verifies(task.key.public_key, algorithm, task.digest, value)
        return RawSignature(
            task=task,
            value=value,
            sound=sound,
            key_handle=key_handle,
            session_handle=session.handle,
            pool_wait_s=began_s - request.asked_s,
            hsm_sign_s=signed_s - began_s,
            verify_s=time.perf_counter() - signed_s,
        )
