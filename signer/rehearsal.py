"""Everything that signing does but for C_Sign, so that callers can try: nothing is signed, nothing stays claimed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from signer.authority import Authority
from signer.errors import HsmUnavailableError, RateLimitedError, SignerError, TooManyTransactionsError
from signer.ports import AuditEntry, AuditLog, Claim, KeyRing, Origin, Signature, SignatureRegister, SigningKey
from signer.transactions import SigningRequest
from signer.work import Refused, VersionsInForce, timestamp


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A transaction that would be signed, or whose signature would be given again."""

    key_label: str
    key_fingerprint: str
    replayed: bool
    """Whether there is a signature already."""
    audit_id: str


@dataclass(slots=True)
class _Try:
    request: SigningRequest
    key: SigningKey | None = None
    kept: Signature | None = None
    error: SignerError | None = None
    audit_id: str | None = None


class Rehearsal:
    """Answers as `SigningService.sign_many` would: from the policy, the keys and the ledger as they are now."""

    def __init__(
        self,
        key_ring: KeyRing,
        register: SignatureRegister,
        audit: AuditLog,
        authority: Authority,
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._key_ring = key_ring
        self._register = register
        self._audit = audit
        self._authority = authority
        self._wall_clock = wall_clock

    def rehearse(self, requests: Sequence[SigningRequest], origin: Origin) -> list[Rehearsed | Refused]:
        """Answer for each, in order, once that is on record; raises `AuditUnavailableError`.

        What is tried counts towards the caller's limit. The ledger is read, not written: whether it could commit now,
        readiness says.
        """
        tries = [_Try(request) for request in requests]
        self._authorise(tries, origin)
        for each in tries:
            if each.error is None:
                self._look(each)
        refusals = self._authority.refusals
        records = refusals.records(
            origin.caller, tries, lambda each: each.error, lambda each: self._entry(each, origin)
        )
        ids = refusals.append(self._audit, [record.entry for record in records]) if records else []
        for record, audit_id in zip(records, ids, strict=True):
            for each in record.items:
                each.audit_id = audit_id
        return [_outcome(each) for each in tries]

    def _authorise(self, tries: Sequence[_Try], origin: Origin) -> None:
        policy, versions = self._authority.current(), VersionsInForce(self._key_ring, self._wall_clock())
        limit = policy.max_batch(origin.caller)
        if len(tries) > limit:
            _fail(tries, TooManyTransactionsError(f"this caller may bring {limit} transactions at once"))
            return
        for each in tries:
            try:
                policy.authorise(origin.caller, each.request)
                each.key = versions.key(each.request.key_alias)
            except SignerError as error:
                each.error = error
        wanted = [each for each in tries if each.error is None]
        try:
            self._authority.admit(origin.caller, len(wanted))
        except RateLimitedError as error:
            _fail(wanted, error)

    def _look(self, each: _Try) -> None:
        request = each.request
        claim = Claim(request.key_alias, request.transaction_id, request.digest, request.algorithm.name)
        try:
            answer = self._register.peek(claim)
        except SignerError as error:
            answer = error
        if isinstance(answer, SignerError):
            each.error = answer
        elif answer is not None:
            each.kept = answer
        elif problems := self._key_ring.problems():
            each.error = HsmUnavailableError(problems[0])

    def _entry(self, each: _Try, origin: Origin) -> AuditEntry:
        request, error = each.request, each.error
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation="dry_run",
            outcome="done" if error is None else "failed" if error.retryable else "refused",
            error_code=None if error is None else error.code,
            entrance=origin.entrance,
            caller=origin.caller,
            channel=origin.channel,
            message_id=origin.message_id,
            transaction_id=request.transaction_id,
            key_alias=request.key_alias,
            key_label=None if each.key is None else each.key.label,
            key_fingerprint=None if each.key is None else each.key.fingerprint,
            algorithm=request.algorithm.name,
            digest="sha256:" + request.digest.hex(),
        )


def _fail(tries: Sequence[_Try], error: SignerError) -> None:
    for each in tries:
        each.error = error


def _outcome(each: _Try) -> Rehearsed | Refused:
    if each.error is not None or each.key is None or each.audit_id is None:
        return Refused(each.error or HsmUnavailableError("no version of this key is ready"), each.audit_id)
    named = each.kept
    label, fingerprint = (
        (each.key.label, each.key.fingerprint) if named is None else (named.key_label, named.key_fingerprint)
    )
    return Rehearsed(label, fingerprint, replayed=named is not None, audit_id=each.audit_id)
