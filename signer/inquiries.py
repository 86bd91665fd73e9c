"""The core's questions that sign nothing: is this signature ours? what was signed? which keys are there?

Each is asked under the policy, and on record, whatever the answer.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from signer.authority import Authority
from signer.errors import InvalidInputError, NotAuthorisedError, SignerError
from signer.policy import AUDITOR, SIGN, Denial
from signer.ports import (
    AuditEntry,
    AuditLog,
    Binding,
    KeyRing,
    KeyVersion,
    Origin,
    SignatureRegister,
    VersionState,
)
from signer.signatures import Algorithm, verifies
from signer.transactions import identifier_or_none
from signer.work import Refused, timestamp


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """A signature that somebody holds, and what it is said to be over."""

    key_alias: str
    algorithm: Algorithm
    digest: bytes
    """SHA-256 of the canonical bytes (32 bytes)."""
    signature: bytes
    content: str
    """Which member it was given as, one of `transactions.CONTENTS`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a signature is valid, and by which version of the key."""

    signed_by: KeyVersion | None
    """None: by none of `tried`."""
    tried: tuple[KeyVersion, ...]
    audit_id: str


@dataclass(frozen=True, slots=True)
class Search:
    """What an auditor looks for: one of the two."""

    transaction_id: str | None = None
    digest: bytes | None = None
    """SHA-256 of the canonical bytes (32 bytes)."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an auditor's question brought to light."""

    bindings: tuple[Binding, ...]
    audit_id: str


KeyVersions = tuple[KeyVersion, ...]
"""What an alias stands for, eldest first."""


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """What a caller may know of keys."""

    by_alias: Mapping[str, KeyVersions]
    audit_id: str


class Inquiries:
    """Answers from what is in memory and in the stores; the HSM is never asked.

    A `Refused` names its audit record, unless there were too many; what is asked while none can be made raises
    `AuditUnavailableError`.
    """

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

    def key_versions(self, alias: str) -> KeyVersions:
        """Give what the alias stands for now, to whoever asks; raises `UnknownKeyError`."""
        return tuple(self._key_ring.versions(alias))

    def key_set(self) -> tuple[list[KeyVersion], datetime]:
        """Give every version of every key, to whoever asks, and the moment (UTC) at which that was so."""
        now = self._wall_clock()
        return [version for alias in self.aliases() for version in self._key_ring.versions(alias, now)], now

    def aliases(self) -> tuple[str, ...]:
        """Name every configured key."""
        return self._key_ring.aliases()

    def refusal(self, operation: str, origin: Origin, key_alias: str, detail: str) -> Refused | None:
        """Refuse a caller on record who asks for no transaction that can be read; None: it may sign with this key."""
        denial = self._authority.current().key_use_denial(origin.caller, key_alias, SIGN)
        if denial is None:
            return None
        entry = replace(self._entry(operation, origin), key_alias=key_alias, detail=detail)
        return self._refused(entry, denial.error)

    def list_keys(self, origin: Origin) -> KnownKeys | Refused:
        """Give what each alias stands for that the caller may know of."""
        policy = self._authority.current()
        entry = self._entry("read_keys", origin)
        try:
            _refuse(policy.stranger_denial(origin.caller))
        except SignerError as error:
            return self._refused(entry, error)
        visible = [alias for alias in self.aliases() if policy.key_denial(origin.caller, alias) is None]
        (audit_id,) = self._audit.append([entry])
        return KnownKeys({alias: self.key_versions(alias) for alias in visible}, audit_id)

    def read_key(self, alias: str, origin: Origin) -> KnownKeys | Refused:
        """Give what one alias stands for, if the caller may know of it."""
        entry = replace(self._entry("read_keys", origin), key_alias=identifier_or_none(alias))
        try:
            _refuse(self._authority.current().key_denial(origin.caller, alias))
            versions = self.key_versions(alias)
        except SignerError as error:
            return self._refused(entry, error)
        (audit_id,) = self._audit.append([entry])
        return KnownKeys({alias: versions}, audit_id)

    def verify(self, wanted: VerificationRequest, origin: Origin) -> Verdict | Refused:
        """Check a signature with the version that signs now, on this task or another, and those that still verify.

        It counts as a transaction towards the caller's limit.
        """
        entry = self._verification_entry(wanted, origin)
        try:
            _refuse(self._authority.current().verification_denial(origin.caller, wanted))
            versions = self.key_versions(wanted.key_alias)
            self._authority.admit(origin.caller, 1)
        except SignerError as error:
            return self._refused(entry, error)
        now = self._wall_clock()
        tried = tuple(version for version in versions if _may_have_signed(version, now))
        signed_by = next((version for version in tried if _signed(version, wanted)), None)
        (audit_id,) = self._audit.append([_verified(entry, signed_by)])
        return Verdict(signed_by, tried, audit_id)

    def search(self, wanted: Search | InvalidInputError, origin: Origin) -> Found | Refused:
        """Give what was claimed and signed, to an auditor; `wanted` may be why the question cannot be read."""
        entry = self._search_entry(wanted, origin)
        try:
            found = self._find(wanted, origin)
        except SignerError as error:
            return self._refused(entry, error)
        (audit_id,) = self._audit.append([entry])
        return Found(found, audit_id)

    def _find(self, wanted: Search | InvalidInputError, origin: Origin) -> tuple[Binding, ...]:
        policy = self._authority.current()
        if not policy.has_role(origin.caller, AUDITOR):
            # Before anything else: whoever is no auditor learns nothing, not even how to ask.
            _refuse(policy.stranger_denial(origin.caller))
            msg = "this caller does not have the role `auditor`"
            raise NotAuthorisedError(msg)
        if isinstance(wanted, InvalidInputError):
            raise wanted
        if wanted.digest is not None:
            return tuple(self._register.by_digest(wanted.digest))
        return tuple(self._register.by_transaction(wanted.transaction_id or ""))

    def _refused(self, entry: AuditEntry, error: SignerError) -> Refused:
        if not self._authority.refusals.admit(entry.caller or "", error):
            return Refused(error)
        outcome = "failed" if error.retryable else "refused"
        entry = replace(entry, outcome=outcome, error_code=error.code)
        (audit_id,) = self._authority.refusals.append(self._audit, [entry])
        return Refused(error, audit_id)

    def _entry(self, operation: str, origin: Origin) -> AuditEntry:
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation=operation,
            outcome="done",
            entrance=origin.entrance,
            caller=origin.caller,
            channel=origin.channel,
            message_id=origin.message_id,
        )

    def _search_entry(self, wanted: Search | InvalidInputError, origin: Origin) -> AuditEntry:
        entry = self._entry("search", origin)
        if isinstance(wanted, InvalidInputError):
            return entry
        digest = None if wanted.digest is None else "sha256:" + wanted.digest.hex()
        return replace(entry, transaction_id=wanted.transaction_id, digest=digest)

    def _verification_entry(self, wanted: VerificationRequest, origin: Origin) -> AuditEntry:
        return replace(
            self._entry("verify", origin),
            key_alias=wanted.key_alias,
            algorithm=wanted.algorithm.name,
            digest="sha256:" + wanted.digest.hex(),
            signature_sha256="sha256:" + hashlib.sha256(wanted.signature).hexdigest(),
        )


def _may_have_signed(version: KeyVersion, now: datetime) -> bool:
    """Tell whether there may be signatures by it: another task may have found an overdue one ready before this did."""
    overdue = version.active_from is None or version.active_from <= now
    return version.state is not VersionState.UPCOMING or (overdue and version.key is not None)


def _refuse(denial: Denial | None) -> None:
    if denial is not None:
        raise denial.error


def _verified(entry: AuditEntry, signed_by: KeyVersion | None) -> AuditEntry:
    if signed_by is None:
        return replace(entry, detail="invalid")
    return replace(entry, key_label=signed_by.label, key_fingerprint=signed_by.fingerprint, detail="valid")


def _signed(version: KeyVersion, wanted: VerificationRequest) -> bool:
    key = version.key
    return key is not None and verifies(key.public_key, wanted.algorithm, wanted.digest, wanted.signature)
