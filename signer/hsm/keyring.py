"""Alias to label to checked key; signs digests, spread over the signing sessions, and comes through faults."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from pkcs11 import MGF, Mechanism
from pkcs11.types import SignMixin

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, KeyRefusedError, SignerError, UnknownKeyError
from signer.hsm.breaker import Breaker
from signer.hsm.compliance import KeySpec, checked_public_key, find_private_key, read_public_key
from signer.hsm.connection import Connection, Lent
from signer.hsm.crew import Crew, Job
from signer.hsm.errors import NOT_FOUND, Fate, HsmFault, fault
from signer.hsm.hung_calls import HungCalls
from signer.hsm.module import Module
from signer.hsm.session_pool import SessionKey, SessionPool, SigningSession
from signer.logs import Logger
from signer.metrics import Metrics
from signer.ports import RawSignature, SigningKey, SignTask
from signer.signatures import DIGEST_SIZE_BYTES, fingerprint

# python-pkcs11's own PSS default is SHA-1: the parameter is always said.
_MECHANISMS: Final[dict[str, tuple[Mechanism, Any]]] = {
    "CKM_RSA_PKCS": (Mechanism.RSA_PKCS, None),
    "CKM_RSA_PKCS_PSS": (Mechanism.RSA_PKCS_PSS, (Mechanism.SHA256, MGF.SHA256, DIGEST_SIZE_BYTES)),
}
_OPENING_TIMEOUT_S: Final = 60.0
_CLOSING_TIMEOUT_S: Final = 10.0
_TRIES_BEYOND_SESSIONS: Final = 4
_THROTTLE_PAUSE_S: Final = 0.01
_LONGEST_THROTTLE_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the HSM is used, and how long it may take."""

    sessions: int
    call_timeout_s: float
    """A call that takes longer counts as hung."""
    end_process: Callable[[], None]
    """What is done when too many calls hang; it does not return."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What every try to make one signature needs to know."""

    deadline: Deadline
    asked_s: float
    """When it was asked for, on `time.perf_counter`."""
    on_hang: Callable[[], None]


class HsmKeyRing:
    """The configured keys of one token; implements `ports.KeyRing`."""

    def __init__(
        self,
        connection: Connection,
        crypto_user: str,
        specs: Sequence[KeySpec],
        limits: Limits,
        metrics: Metrics,
        logger: Logger,
    ) -> None:
        """Check every key on a session of its own; raises `KeyRefusedError` for the first that is not right."""
        self._connection = connection
        self._specs = {spec.alias: spec for spec in specs}
        self._breaker = Breaker(metrics, logger)
        self._retries = metrics.hsm_retries
        self._hung_calls = HungCalls(limits.call_timeout_s, limits.sessions, limits.end_process, metrics, logger)
        connection.call_hangs = lambda: self._hung_calls.any
        self._pool = SessionPool(self._open_session, self._hung_calls, limits.sessions, metrics)
        self._crew = Crew(limits.sessions, self._answer)
        self._keys = self._load(crypto_user, logger)

    def warm_up(self, interval_s: float) -> None:
        """Open every signing session and look its keys up, `interval_s` apart."""
        try:
            with self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent:
                self._pool.warm_up(lent, interval_s)
        except HsmFault as found:
            raise found.error from None

    def aliases(self) -> tuple[str, ...]:
        """Name every configured key."""
        return tuple(self._keys)

    def key(self, alias: str) -> SigningKey:
        """Give the checked key; raises `UnknownKeyError`."""
        try:
            return self._keys[alias]
        except KeyError:
            msg = "no key with this alias is configured"
            raise UnknownKeyError(msg) from None

    def problems(self) -> tuple[str, ...]:
        """Say why nothing is signed at present; empty while the breaker is closed."""
        reason = self._breaker.reason
        return () if reason is None else (f"the HSM does not sign: {reason}",)

    def sign(
        self, tasks: Sequence[SignTask], deadline: Deadline, *, probing: bool = False
    ) -> list[RawSignature | SignerError]:
        """Sign every task, as many at once as there are sessions, and answer for each, in order.

        While the breaker is open everyone but who is `probing` is answered at once.
        """
        try:
            deadline.check()
            if not probing:
                self._breaker.check()
        except SignerError as error:
            return [error for _ in tasks]
        if not tasks:
            return []
        job = Job(tasks, deadline)
        self._crew.put(job)
        return job.wait()

    def close(self) -> None:
        """Close every signing session; the connection stays."""
        self._crew.close(_CLOSING_TIMEOUT_S)
        self._hung_calls.close()
        self._pool.close()

    def _answer(self, job: Job, number: int, task: SignTask) -> None:
        member = threading.current_thread()
        # How long the job waited for a thread is told by its first task; the others wait for their siblings only.
        asked_s = job.asked_s if number == 0 else time.perf_counter()

        def on_hang() -> None:
            message = "a call into the HSM does not come back"
            self._breaker.failed(message)
            job.answer(number, HsmUnavailableError(message))
            self._crew.replace(member)

        try:
            job.answer(number, self._sign_with_retries(task, _Request(job.deadline, asked_s, on_hang)))
        except SignerError as error:
            # Whatever is wrong with the HSM is never the transaction's fault: it may be tried again.
            job.answer(number, error if error.retryable else HsmUnavailableError(error.message))

    def _sign_with_retries(self, task: SignTask, request: "_Request") -> RawSignature:
        """Try until the deadline while the HSM is throttled, and a few times after anything else that may pass."""
        for attempt in range(1_000_000):
            request.deadline.check()
            generation = self._connection.generation
            try:
                signature = self._sign_once(task, request)
            except HsmFault as found:
                self._retries.labels(found.rule.name).inc()
                self._mend_or_give_up(found, generation, attempt, request.deadline)
            else:
                self._connection.worked()
                self._breaker.succeeded()
                return signature
        raise AssertionError  # pragma: no cover - the deadline comes first

    def _mend_or_give_up(self, found: HsmFault, generation: int, attempt: int, deadline: Deadline) -> None:
        throttled = found.rule.fate is Fate.KEEP and found.rule.retry
        # When all sessions died at once, one request may meet every one of them before it gets a new one.
        tries = self._pool.size + _TRIES_BEYOND_SESSIONS
        if not throttled and (not found.rule.retry or attempt + 1 >= tries):
            self._breaker.failed(str(found))
            raise found.error from None
        try:
            self._connection.mend(found.rule.fate, generation)
        except SignerError as error:
            self._breaker.failed(error.message)
            raise
        if throttled:
            longest_s = min(_THROTTLE_PAUSE_S * 2.0**attempt, _LONGEST_THROTTLE_PAUSE_S)
            time.sleep(min(random.uniform(0, longest_s), deadline.remaining_s()))  # noqa: S311 - jitter is no secret

    def _sign_once(self, task: SignTask, request: "_Request") -> RawSignature:
        mechanism, parameter = _MECHANISMS[task.algorithm.mechanism]
        with (
            self._connection.lend(request.deadline) as lent,
            # Borrowed for one signature only, so that a single request need not wait for a whole batch.
            self._pool.borrow(lent, request.deadline, request.on_hang) as session,
        ):
            key = session.keys[task.key.label]
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

    def _load(self, crypto_user: str, logger: Logger) -> dict[str, SigningKey]:
        with self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent:
            try:
                session = lent.module.open_session()
                keys = [self._load_one(lent.module, session, spec, crypto_user) for spec in self._specs.values()]
            except HsmFault as found:
                raise found.error from None
            lent.module.close_session(session)
        for spec in self._specs.values():
            if spec.waived:
                logger.warning("key.checks_waived", key=spec.alias, label=spec.label, waived=sorted(spec.waived))
        return {key.alias: key for key in keys}

    @staticmethod
    def _load_one(module: Module, session: pkcs11.Session, spec: KeySpec, crypto_user: str) -> SigningKey:
        public_key = checked_public_key(session, spec)
        return SigningKey(spec.alias, spec.label, fingerprint(public_key), public_key, module.token_serial, crypto_user)

    def _open_session(self, lent: Lent) -> SigningSession:
        raw = lent.module.open_session()
        try:
            keys = {key.label: self._look_up(raw, key) for key in self._keys.values()}
        except BaseException:
            lent.module.close_session(raw)
            raise
        return SigningSession(lent.module, raw, lent.generation, keys)

    def _look_up(self, raw: pkcs11.Session, key: SigningKey) -> SessionKey:
        # Handles belong to a session; and the label may point to another key by now.
        spec = self._specs[key.alias]
        try:
            found = find_private_key(raw, spec)
            if found is None:
                raise HsmFault(NOT_FOUND, f"looking key {key.alias} up")
            same = read_public_key(found, spec).public_numbers() == key.public_key.public_numbers()
        except KeyRefusedError as error:
            raise HsmUnavailableError(error.message) from None
        if same and isinstance(found, SignMixin) and found.handle is not None:
            return SessionKey(found.handle, found)
        msg = f"key {key.alias} (label {key.label}) is no longer the key that was checked at start"
        raise HsmUnavailableError(msg)
