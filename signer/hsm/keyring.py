"""Alias to label to checked key; signs digests, spread over the signing sessions, and comes through faults."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pkcs11
from pkcs11.types import SignMixin

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, KeyRefusedError, KilledError, SignerError
from signer.hsm.breaker import Breaker, Trouble
from signer.hsm.compliance import KeySpec, find_private_key, read_public_key, refused
from signer.hsm.connection import Connection, Lent
from signer.hsm.crew import Crew, Job
from signer.hsm.errors import NOT_FOUND, HsmFault
from signer.hsm.hung_calls import HungCalls
from signer.hsm.journal import Journal
from signer.hsm.key_versions import KeyVersions
from signer.hsm.latch import Latch
from signer.hsm.rotation import RotationWatch
from signer.hsm.session_pool import SessionKey, SessionPool, SigningSession
from signer.hsm.signature_maker import Request, SignatureMaker
from signer.ports import AuditEntry, KeyVersion, RawSignature, SigningKey, SignTask, let_all_pass

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
        """Check every key on a session of its own; raises `KeyRefusedError` if one has no version to sign with."""
        self._connection = connection
        self._journal = journal
        self._breaker = Breaker(latch, journal)
        self._versions = KeyVersions(specs, journal, journal.wall_clock)
        self._rotation = RotationWatch(self._versions, journal, journal.wall_clock)
        self._hung_calls = HungCalls(limits.call_timeout_s, limits.sessions, limits.end_process, journal)
        connection.call_hangs = lambda: self._hung_calls.any
        self._pool = SessionPool(self._open_session, self._hung_calls, limits.sessions, journal.metrics)
        self._maker = SignatureMaker(connection, self._pool, self._breaker, self._key_in, journal.metrics)
        self._crew = Crew(limits.sessions, self._answer)
        self._load(crypto_user)

    def warm_up(self, interval_s: float) -> None:
        """Open every signing session and look its keys up, `interval_s` apart."""
        try:
            with self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent:
                self._pool.warm_up(lent, interval_s)
        except HsmFault as found:
            raise found.error from None

    def aliases(self) -> tuple[str, ...]:
        """Name every configured key."""
        return self._versions.aliases()

    def key(self, alias: str, at: datetime | None = None) -> SigningKey:
        """Give the key in force; raises `UnknownKeyError`, `KeyNotReadyError`."""
        return self._versions.key(alias, at)

    def versions(self, alias: str, at: datetime | None = None) -> Sequence[KeyVersion]:
        """Give the versions as they are, eldest first; raises `UnknownKeyError`."""
        return self._versions.versions(alias, at)

    def prove(self, key: SigningKey, error: SignerError | None, *, hsm_signs: bool) -> None:
        """Learn what became of a test signature, and whether the HSM signs at all at present."""
        self._versions.prove(key, error, hsm_signs=hsm_signs)

    def warnings(self) -> tuple[str, ...]:
        """Say which versions do not sign, or are not published, as planned."""
        return self._rotation.warnings()

    def problems(self) -> tuple[str, ...]:
        """Say why nothing is signed at present; empty while the breaker is closed."""
        reason = self._breaker.reason
        return (*self._versions.problems(), *(() if reason is None else (f"the HSM does not sign: {reason}",)))

    def check_keys(self) -> None:
        """Read every key's attributes again; one that drifted is out of service until the process starts anew."""
        request = Deadline.after(_OPENING_TIMEOUT_S)
        try:
            with self._connection.lend(request) as lent, self._pool.borrow(lent, request, _nothing) as session:
                self._versions.examine(session.raw)
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
        self._rotation.look()
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
            out_of_service = self._versions.of(task.key).out_of_service
            if out_of_service is not None:
                raise HsmUnavailableError(out_of_service)
            job.answer(number, self._maker.make(task, Request(job.deadline, asked_s, on_hang, job.refuse)))
        except KilledError as error:
            job.answer(number, error)
        except SignerError as error:
            # Whatever is wrong with the HSM is never the transaction's fault: it may be tried again.
            job.answer(number, error if error.retryable else HsmUnavailableError(error.message))

    def _load(self, crypto_user: str) -> None:
        with self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent:
            try:
                session = lent.module.open_session()
                self._versions.load(session, lent.module.token_serial, crypto_user)
            except HsmFault as found:
                raise found.error from None
            lent.module.close_session(session)

    def _open_session(self, lent: Lent) -> SigningSession:
        raw = lent.module.open_session()
        try:
            keys = dict(self._look_all_up(raw))
        except BaseException:
            lent.module.close_session(raw)
            raise
        return SigningSession(lent.module, raw, lent.generation, keys)

    def _look_all_up(self, raw: pkcs11.Session) -> Iterator[tuple[str, SessionKey]]:
        """Look up what signs, and before its time what is to sign: then, all sessions would do it at once."""
        for alias in self._versions.aliases():
            current = self._versions.in_force(alias)
            for key in self._versions.to_look_up(alias):
                try:
                    yield key.label, self._look_up(raw, key)
                except (HsmFault, HsmUnavailableError):
                    if current is not None and current.key is key:
                        raise

    def _key_in(self, session: SigningSession, key: SigningKey) -> SessionKey:
        """Give a key as the session knows it; one of another version is looked up when it is first asked for."""
        if key.label not in session.keys:
            session.keys[key.label] = self._look_up(session.raw, key)
        return session.keys[key.label]

    def _look_up(self, raw: pkcs11.Session, key: SigningKey) -> SessionKey:
        # Handles belong to a session; and the label may point to another key by now.
        version = self._versions.of(key)
        spec = version.spec
        try:
            found = find_private_key(raw, spec)
            if found is None:
                raise HsmFault(NOT_FOUND, f"looking key {key.alias} up")
            if read_public_key(found, spec).public_numbers() != key.public_key.public_numbers():
                raise refused(spec, "it is no longer the key that was checked at start")
        except KeyRefusedError as error:
            self._versions.lose(version, error.message)
            raise HsmUnavailableError(error.message) from None
        if isinstance(found, SignMixin) and found.handle is not None:
            return SessionKey(found.handle, found)
        msg = f"the module gave key {key.alias} in a shape that cannot sign"
        raise HsmUnavailableError(msg)


def _nothing() -> None:
    """Nobody waits for a check of the keys."""
