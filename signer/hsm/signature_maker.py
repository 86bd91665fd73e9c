"""Makes one signature: borrows a session, signs, and mends what it finds broken, until the deadline."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from pkcs11 import MGF, Mechanism

from signer.deadlines import Deadline
from signer.errors import LoginRefusedError, SignerError
from signer.hsm.breaker import Breaker, Trouble
from signer.hsm.connection import Connection
from signer.hsm.errors import Fate, HsmFault, fault
from signer.hsm.session_pool import SessionKey, SessionPool, SigningSession
from signer.metrics import HsmMetrics
from signer.ports import RawSignature, SigningKey, SignTask, let_all_pass
from signer.signatures import DIGEST_SIZE_BYTES

# python-pkcs11's own PSS default is SHA-1: the parameter is always said.
_MECHANISMS: Final[dict[str, tuple[Mechanism, Any]]] = {
    "CKM_RSA_PKCS": (Mechanism.RSA_PKCS, None),
    "CKM_RSA_PKCS_PSS": (Mechanism.RSA_PKCS_PSS, (Mechanism.SHA256, MGF.SHA256, DIGEST_SIZE_BYTES)),
}
_TRIES_BEYOND_SESSIONS: Final = 4
_THROTTLE_PAUSE_S: Final = 0.01
_LONGEST_THROTTLE_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Request:
    """What every try to make one signature needs to know."""

    deadline: Deadline
    asked_s: float
    """When it was asked for, on `time.perf_counter`."""
    on_hang: Callable[[], None]
    refuse: Callable[[SignTask], None] = let_all_pass
    """Raises what a try must not be made for."""


class SignatureMaker:
    """Knows the way to the HSM and what to do when it is lost."""

    def __init__(
        self,
        connection: Connection,
        pool: SessionPool,
        breaker: Breaker,
        key_in: Callable[[SigningSession, SigningKey], SessionKey],
        metrics: HsmMetrics,
    ) -> None:
        """`key_in` gives a key as a session knows it; raises `HsmFault`, `HsmUnavailableError`."""
        self._connection = connection
        self._key_in = key_in
        self._pool = pool
        self._breaker = breaker
        self._metrics = metrics

    def make(self, task: SignTask, request: Request) -> RawSignature:
        """Try until the deadline while the HSM is throttled, and a few times after anything else that may pass.

        Raises `SignerError`.
        """
        for attempt in range(1_000_000):
            request.deadline.check()
            request.refuse(task)
            generation = self._connection.generation
            try:
                signature = self._sign_once(task, request)
            except HsmFault as found:
                self._metrics.retries.labels(found.rule.name).inc()
                self._mend_or_give_up(found, generation, attempt, request.deadline)
            else:
                self._connection.worked()
                self._breaker.signed()
                return signature
        raise AssertionError  # pragma: no cover - the deadline comes first

    def _mend_or_give_up(self, found: HsmFault, generation: int, attempt: int, deadline: Deadline) -> None:
        throttled = found.rule.fate is Fate.KEEP and found.rule.retry
        # When all sessions died at once, one request may meet every one of them before it gets a new one.
        tries = self._pool.size + _TRIES_BEYOND_SESSIONS
        if not throttled and (not found.rule.retry or attempt + 1 >= tries):
            self._breaker.failed(Trouble.ERROR, str(found))
            raise found.error from None
        try:
            self._connection.mend(found.rule.fate, generation)
        except SignerError as error:
            trouble = Trouble.LOGIN if isinstance(error, LoginRefusedError) else Trouble.LOST
            self._breaker.failed(trouble, error.message)
            raise
        if throttled:
            self._metrics.throttles.inc()
            longest_s = min(_THROTTLE_PAUSE_S * 2.0**attempt, _LONGEST_THROTTLE_PAUSE_S)
            time.sleep(min(random.uniform(0, longest_s), deadline.remaining_s()))  # noqa: S311 - jitter is no secret

    def _sign_once(self, task: SignTask, request: Request) -> RawSignature:
        mechanism, parameter = _MECHANISMS[task.algorithm.mechanism]
        with (
            self._connection.lend(request.deadline) as lent,
            # Borrowed for one signature only, so that a single request need not wait for a whole batch.
            self._pool.borrow(lent, request.deadline, request.on_hang) as session,
        ):
            key = self._key_in(session, task.key)
            began_s = time.perf_counter()
            try:
                value = key.private_key.sign(
                    task.algorithm.hsm_input(task.digest), mechanism=mechanism, mechanism_param=parameter
                )
            except pkcs11.PKCS11Error as error:
                raise fault(error, "C_Sign") from None
            ended_s = time.perf_counter()
            return RawSignature(
                value=value,
                key_handle=key.handle,
                session_handle=session.handle,
                pool_wait_s=began_s - request.asked_s,
                hsm_sign_s=ended_s - began_s,
            )
