"""Alias to label to checked key; signs digests, spread over the signing sessions, and comes through faults."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, KilledError, SignerError
from signer.hsm.bounded import ends_in_time
from signer.hsm.breaker import Breaker, Trouble
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.crew import Crew, Job
from signer.hsm.errors import Fate, HsmFault
from signer.hsm.hung_calls import nobody_waits
from signer.hsm.journal import Journal
from signer.hsm.key_finder import KeyFinder
from signer.hsm.key_versions import KeyVersions, Version
from signer.hsm.latch import Latch
from signer.hsm.rotation import RotationWatch
from signer.hsm.session_pool import SessionPool
from signer.hsm.signature_maker import LOOKS_FOR_A_KEY, Request, SignatureMaker
from signer.ports import AuditEntry, KeyVersion, RawSignature, SigningKey, SignTask, let_all_pass

_OPENING_TIMEOUT_S: Final = 60.0
_CLOSING_TIMEOUT_S: Final = 1.0


class HsmKeyRing:
    """The configured keys of one token; implements `ports.KeyRing`."""

    def __init__(
        self,
        connection: Connection,
        crypto_user: str,
        specs: Sequence[KeySpec],
        sessions: int,
        latch: Latch,
        journal: Journal,
    ) -> None:
        """Check every key on a session of its own; raises `KeyRefusedError` if one has no version to sign with."""
        self._connection = connection
        self._journal = journal
        self._breaker = Breaker(latch, journal)
        self._versions = KeyVersions(specs, journal, journal.wall_clock, connection.hung_calls.went_on)
        self._rotation = RotationWatch(self._versions, journal, journal.wall_clock)
        self._hung_calls = connection.hung_calls
        finder = KeyFinder(self._versions, self._hung_calls.went_on)
        self._pool = SessionPool(finder.open_session, self._hung_calls, sessions, journal.metrics)
        self._maker = SignatureMaker(connection, self._pool, self._breaker, finder, journal.metrics)
        self._crew = Crew(sessions, self._answer)
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
        """Read every key's attributes again; one that drifted is out of service until the process starts anew.

        Returns soon even if the HSM does not. While it does not sign, a look would only hold up the probe that ends it.
        """
        if self._breaker.reason is not None:
            return
        ends_in_time(self._check_keys, 2 * self._hung_calls.limit_s)

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
            self._connection.check_process()
            self._breaker.check(probing=probing)
        except SignerError as error:
            return [error for _ in tasks]
        if not tasks:
            return []
        job = Job(tasks, deadline, refuse, probing=probing)
        self._crew.put(job)
        return job.wait()

    def close(self) -> None:
        """Close every signing session; the connection stays."""
        self._crew.close(_CLOSING_TIMEOUT_S)
        self._pool.close()

    def _answer(self, job: Job, number: int, task: SignTask) -> None:
        member = threading.current_thread()
        # How long the job waited for a thread is told by its first task; the others wait for their siblings only.
        asked_s = job.asked_s if number == 0 else time.perf_counter()

        def on_hang() -> None:
            message = "a call into the HSM does not come back"
            request.given_up = True
            self._breaker.failed(Trouble.HUNG, message, at_once=self._hung_calls.are_many)
            job.answer(number, HsmUnavailableError(message))
            self._crew.replace(member)

        request = Request(job.deadline, asked_s, on_hang, job.refuse)
        try:
            if not job.probing:
                # It may have opened since the job began: the rest of a batch need not find that out one by one.
                self._breaker.check(probing=False)
            out_of_service = self._versions.of(task.key).out_of_service
            if out_of_service is not None:
                raise HsmUnavailableError(out_of_service)
            job.answer(number, self._maker.make(task, request))
        except KilledError as error:
            job.answer(number, error)
        except SignerError as error:
            # Whatever is wrong with the HSM is never the transaction's fault: it may be tried again.
            job.answer(number, error if error.retryable else HsmUnavailableError(error.message))

    def _check_keys(self) -> None:
        request = Deadline.after(_OPENING_TIMEOUT_S)
        try:
            for version in self._absent(request):
                self._versions.lose_absent(version)
        except (HsmFault, SignerError):
            # The HSM cannot be asked now; whether it signs is found out, and told, by those who ask it to.
            return

    def _absent(self, request: Deadline) -> list[Version]:
        """Give the versions in force that are twice not found while the login stands: it hides them when it is gone."""
        absent: list[Version] = []
        for _ in range(LOOKS_FOR_A_KEY):
            generation = self._connection.generation
            with self._connection.lend(request) as lent, self._pool.borrow(lent, request, nobody_waits) as session:
                absent = self._versions.examine(session.raw)
            if absent:
                self._connection.mend(Fate.LOG_IN, generation, request)
            if not absent or self._connection.generation != generation:
                return []
        return absent

    def _load(self, crypto_user: str) -> None:
        with (
            self._connection.lend(Deadline.after(_OPENING_TIMEOUT_S)) as lent,
            self._hung_calls.mending(nobody_waits),
        ):
            try:
                session = lent.module.open_session()
                self._versions.load(session, lent.module.token_serial, crypto_user)
            except HsmFault as found:
                raise found.error from None
            lent.module.close_session(session)
