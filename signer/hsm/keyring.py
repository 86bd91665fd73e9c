"""Alias to label to checked key; signs digests, spread over the signing sessions, and comes through faults."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import pkcs11
from pkcs11.types import SignMixin

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, KeyRefusedError, KilledError, SignerError, UnknownKeyError
from signer.hsm.breaker import Breaker, Trouble
from signer.hsm.compliance import KeySpec, check_key, checked_public_key, find_private_key, read_public_key, refused
from signer.hsm.connection import Connection, Lent
from signer.hsm.crew import Crew, Job
from signer.hsm.errors import NOT_FOUND, HsmFault
from signer.hsm.hung_calls import HungCalls
from signer.hsm.journal import Journal
from signer.hsm.latch import Latch
from signer.hsm.module import Module
from signer.hsm.session_pool import SessionKey, SessionPool, SigningSession
from signer.hsm.signature_maker import Request, SignatureMaker
from signer.ports import AuditEntry, KeyVersion, RawSignature, SigningKey, SignTask, VersionState, let_all_pass
from signer.signatures import fingerprint

_OPENING_TIMEOUT_S: Final = 60.0
_CLOSING_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the HSM is used, and how long it may take."""

    sessions: int
    call_timeout_s: float
    """A call that takes longer counts as hung."""
    end_process: Callable[[], None]
    """What is done when too many calls hang; it does not return."""


class HsmKeyRing:
    """The configured keys of one token; implements `ports.KeyRing`."""

    def __init__(
        self,
        connection: Connection,
        crypto_user: str,
        specs: Sequence[KeySpec],
        limits: Limits,
        latch: Latch,
        journal: Journal,
    ) -> None:
        """Check every key on a session of its own; raises `KeyRefusedError` for the first that is not right."""
        self._connection = connection
        self._specs = {spec.alias: spec for spec in specs}
        self._journal = journal
        self._breaker = Breaker(latch, journal)
        self._drifted: dict[str, str] = {}
        self._hung_calls = HungCalls(limits.call_timeout_s, limits.sessions, limits.end_process, journal)
        connection.call_hangs = lambda: self._hung_calls.any
        self._pool = SessionPool(self._open_session, self._hung_calls, limits.sessions, journal.metrics)
        self._maker = SignatureMaker(connection, self._pool, self._breaker, journal.metrics)
        self._crew = Crew(limits.sessions, self._answer)
        self._keys = self._load(crypto_user)

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

    def versions(self, alias: str, at: datetime | None = None) -> Sequence[KeyVersion]:
        """Give the one version that there is."""
        key = self.key(alias, at)
        return [KeyVersion(alias, key.label, VersionState.ACTIVE, key.fingerprint, key)]

    def key(self, alias: str, at: datetime | None = None) -> SigningKey:  # noqa: ARG002
        """Give the checked key; raises `UnknownKeyError`."""
        try:
            return self._keys[alias]
        except KeyError:
            msg = "no key with this alias is configured"
            raise UnknownKeyError(msg) from None

    def problems(self) -> tuple[str, ...]:
        """Say why nothing is signed at present; empty while the breaker is closed."""
        reason = self._breaker.reason
        return (*self._drifted.values(), *(() if reason is None else (f"the HSM does not sign: {reason}",)))

    def check_keys(self) -> None:
        """Read every key's attributes again; one that drifted is out of service until the process starts anew."""
        request = Deadline.after(_OPENING_TIMEOUT_S)
        try:
            with self._connection.lend(request) as lent, self._pool.borrow(lent, request, _nothing) as session:
                for spec in self._specs.values():
                    self._check_key(session, spec)
        except (HsmFault, SignerError):
            # The HSM cannot be asked now; whether it signs is found out, and told, by those who ask it to.
            return

    def judge(self, signature: RawSignature, *, sound: bool) -> None:
        """Trust the HSM again after a signature that verified; never use the session of one that did not again."""
        if sound:
            self._breaker.verified()
        else:
            self._pool.distrust(signature.session_handle)
            self._breaker.wrong_signature()

    def take_incidents(self) -> list[AuditEntry]:
        """Give what happened since it was last asked and belongs into the audit log."""
        return self._journal.take_incidents()

    def sign(
        self,
        tasks: Sequence[SignTask],
        deadline: Deadline,
        *,
        probing: bool = False,
        refuse: Callable[[SignTask], None] = let_all_pass,
    ) -> list[RawSignature | SignerError]:
        """Sign every task, as many at once as there are sessions, and answer for each, in order.

        While the breaker is open everyone but who is `probing` is answered at once.
        """
        try:
            deadline.check()
            self._breaker.check(probing=probing)
        except SignerError as error:
            return [error for _ in tasks]
        if not tasks:
            return []
        job = Job(tasks, deadline, refuse)
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
            self._breaker.failed(Trouble.HUNG, message)
            job.answer(number, HsmUnavailableError(message))
            self._crew.replace(member)

        try:
            if task.key.alias in self._drifted:
                raise HsmUnavailableError(self._drifted[task.key.alias])
            job.answer(number, self._maker.make(task, Request(job.deadline, asked_s, on_hang, job.refuse)))
        except KilledError as error:
            job.answer(number, error)
        except SignerError as error:
            # Whatever is wrong with the HSM is never the transaction's fault: it may be tried again.
            job.answer(number, error if error.retryable else HsmUnavailableError(error.message))

    def _check_key(self, session: SigningSession, spec: KeySpec) -> None:
        pinned = replace(spec, fingerprint=self._keys[spec.alias].fingerprint)
        try:
            key = find_private_key(session.raw, pinned)
            if key is None:
                # Perhaps the login is gone, which makes keys invisible; the next signature will tell.
                return
            check_key(key, pinned)
        except KeyRefusedError as error:
            self._take_out_of_service(spec.alias, error.message)
        self._journal.metrics.key_checks.labels(spec.alias).inc()

    def _take_out_of_service(self, alias: str, why: str) -> None:
        if alias not in self._drifted:
            self._journal.logger.critical("key.drifted", key=alias, reason=why)
            self._journal.incident("key.drifted", why, alias)
            self._journal.metrics.key_compliant.labels(alias).set(0)
        self._drifted[alias] = f"out of service: {why}"

    def _load(self, crypto_user: str) -> dict[str, SigningKey]:
        with self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent:
            try:
                session = lent.module.open_session()
                keys = [self._load_one(lent.module, session, spec, crypto_user) for spec in self._specs.values()]
            except HsmFault as found:
                raise found.error from None
            lent.module.close_session(session)
        for spec in self._specs.values():
            if spec.waived:
                self._journal.logger.warning(
                    "key.checks_waived", key=spec.alias, label=spec.label, waived=sorted(spec.waived)
                )
        for key in keys:
            self._journal.metrics.key_compliant.labels(key.alias).set(1)
        return {key.alias: key for key in keys}

    @staticmethod
    def _load_one(module: Module, session: pkcs11.Session, spec: KeySpec, crypto_user: str) -> SigningKey:
        public_key = checked_public_key(session, spec)
        found = fingerprint(public_key)
        return SigningKey(spec.alias, spec.label, found, public_key, module.token_serial, crypto_user)

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
            if read_public_key(found, spec).public_numbers() != key.public_key.public_numbers():
                raise refused(spec, "it is no longer the key that was checked at start")
        except KeyRefusedError as error:
            self._take_out_of_service(key.alias, error.message)
            raise HsmUnavailableError(error.message) from None
        if isinstance(found, SignMixin) and found.handle is not None:
            return SessionKey(found.handle, found)
        msg = f"the module gave key {key.alias} in a shape that cannot sign"
        raise HsmUnavailableError(msg)


def _nothing() -> None:
    """Nobody waits for a check of the keys."""
