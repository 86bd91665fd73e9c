"""Alias to label to checked key; signs digests, spread over the signing sessions."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pkcs11
from pkcs11 import MGF, Mechanism
from pkcs11.types import SignMixin

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, KeyRefusedError, SignerError, UnknownKeyError
from signer.hsm.compliance import KeySpec, check_key, find_private_key, read_public_key
from signer.hsm.errors import translate
from signer.hsm.module import Module, close_session
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


class HsmKeyRing:
    """The configured keys of one token; implements `ports.KeyRing`."""

    def __init__(
        self,
        module: Module,
        crypto_user: str,
        specs: Sequence[KeySpec],
        sessions: int,
        metrics: Metrics,
        logger: Logger,
    ) -> None:
        """Check every key on a session of its own; raises `KeyRefusedError` for the first that is not right."""
        self._module = module
        self._specs = {spec.alias: spec for spec in specs}
        self._keys: dict[str, SigningKey] = {}
        self._pool = SessionPool(self._open_session, sessions, metrics)
        # One worker a session; the thread that asks works too, so no batch waits for another one's workers.
        self._workers = ThreadPoolExecutor(sessions, thread_name_prefix="hsm")
        session = module.open_session()
        try:
            for spec in specs:
                self._keys[spec.alias] = self._load(session, spec, crypto_user, logger)
        finally:
            close_session(session)

    def warm_up(self, interval_s: float) -> None:
        """Open every signing session and look its keys up, `interval_s` apart."""
        self._pool.warm_up(interval_s)

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

    def sign(self, tasks: Sequence[SignTask], deadline: Deadline) -> list[RawSignature | SignerError]:
        """Sign every task, as many at once as there are sessions, and answer for each, in order."""
        answers: dict[int, RawSignature | SignerError] = {}
        pending = deque(enumerate(tasks))
        helpers = [
            self._workers.submit(self._work_off, pending, answers, deadline)
            for _ in range(min(len(tasks), self._pool.size) - 1)
        ]
        self._work_off(pending, answers, deadline)
        for helper in helpers:
            # One that has not begun yet would find nothing left to do.
            if not helper.cancel():
                helper.result()
        return [answers[index] for index in range(len(tasks))]

    def close(self) -> None:
        """Close every signing session; the module itself stays logged in."""
        self._workers.shutdown()
        self._pool.close()

    def _work_off(
        self, pending: deque[tuple[int, SignTask]], answers: dict[int, RawSignature | SignerError], deadline: Deadline
    ) -> None:
        # All workers take from one queue: fixed shares would leave the fast ones idle while the slowest finishes.
        while True:
            try:
                index, task = pending.popleft()
            except IndexError:
                return
            try:
                answers[index] = self._sign_one(task, deadline)
            except SignerError as error:
                # Whatever is wrong with the HSM is never the transaction's fault: it may be tried again.
                answers[index] = error if error.retryable else HsmUnavailableError(error.message)

    def _sign_one(self, task: SignTask, deadline: Deadline) -> RawSignature:
        deadline.check()
        mechanism, parameter = _MECHANISMS[task.algorithm.mechanism]
        asked_s = time.perf_counter()
        # Borrowed for one signature only, so that a single request need not wait for a whole batch.
        with self._pool.borrow(deadline) as session:
            self._module.check_process()
            key = session.keys[task.key.label]
            began_s = time.perf_counter()
            try:
                value = key.private_key.sign(
                    task.algorithm.hsm_input(task.digest), mechanism=mechanism, mechanism_param=parameter
                )
            except pkcs11.PKCS11Error as error:
                raise translate(error, "C_Sign") from None
            ended_s = time.perf_counter()
            return RawSignature(
                value=value,
                key_handle=key.handle,
                session_handle=session.handle,
                pool_wait_s=began_s - asked_s,
                hsm_sign_s=ended_s - began_s,
            )

    def _load(self, session: pkcs11.Session, spec: KeySpec, crypto_user: str, logger: Logger) -> SigningKey:
        public_key = check_key(find_private_key(session, spec), spec)
        if spec.waived:
            logger.warning("key.checks_waived", key=spec.alias, label=spec.label, waived=sorted(spec.waived))
        return SigningKey(
            spec.alias, spec.label, fingerprint(public_key), public_key, self._module.token_serial, crypto_user
        )

    def _open_session(self) -> SigningSession:
        raw = self._module.open_session()
        try:
            keys = {key.label: self._look_up(raw, key) for key in self._keys.values()}
            return SigningSession(raw, raw.handle, keys)  # type: ignore[attr-defined] # the stub leaves it out
        except BaseException:
            close_session(raw)
            raise

    def _look_up(self, raw: pkcs11.Session, key: SigningKey) -> SessionKey:
        # Handles belong to a session; and the label may point to another key by now.
        spec = self._specs[key.alias]
        try:
            found = find_private_key(raw, spec)
            same = read_public_key(found, spec).public_numbers() == key.public_key.public_numbers()
        except KeyRefusedError as error:
            raise HsmUnavailableError(error.message) from None
        if same and isinstance(found, SignMixin) and found.handle is not None:
            return SessionKey(found.handle, found)
        msg = f"key {key.alias} (label {key.label}) is no longer the key that was checked at start"
        raise HsmUnavailableError(msg)
