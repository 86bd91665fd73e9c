"""The core's questions that sign nothing: is this signature ours? what was signed? Each is on record."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from signer.authority import Authority
from signer.errors import NotAuthorisedError
from signer.policy import AUDITOR
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
from signer.work import timestamp


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """A signature that somebody holds, and what it is said to be over."""

    key_alias: str
    algorithm: Algorithm
    digest: bytes
    """SHA-256 of the canonical bytes (32 bytes)."""
    signature: bytes


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


class Inquiries:
    """Answers from what is in memory and in the stores; the HSM is never asked."""

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

    def key_versions(self, alias: str) -> tuple[KeyVersion, ...]:
        """Give what the alias stands for now, eldest first; raises `UnknownKeyError`."""
        return tuple(self._key_ring.versions(alias))

    def aliases(self) -> tuple[str, ...]:
        """Name every configured key."""
        return self._key_ring.aliases()

    def verify(self, wanted: VerificationRequest, origin: Origin) -> Verdict:
        """Check a signature with the version that signs now and those that still verify.

        Raises `UnknownKeyError`, `AuditUnavailableError`.
        """
        tried = tuple(
            version for version in self.key_versions(wanted.key_alias) if version.state is not VersionState.UPCOMING
        )
        signed_by = next((version for version in tried if _signed(version, wanted)), None)
        (audit_id,) = self._audit.append([self._entry_of(wanted, signed_by, origin)])
        return Verdict(signed_by, tried, audit_id)

    def search(self, wanted: Search, origin: Origin) -> tuple[list[Binding], str]:
        """Give what was claimed and signed, to an auditor, and the id of the record that tells of it.

        Raises `NotAuthorisedError` (on record, too), `DigestNotIndexedError`, `LedgerUnavailableError`,
        `AuditUnavailableError`.
        """
        if not self._authority.current().has_role(origin.caller, AUDITOR):
            error = NotAuthorisedError("this caller does not have the role `auditor`")
            self._audit.append([self._search_entry(wanted, origin, "refused", error.code)])
            raise error
        if wanted.digest is not None:
            found = self._register.by_digest(wanted.digest)
        else:
            found = self._register.by_transaction(wanted.transaction_id or "")
        (audit_id,) = self._audit.append([self._search_entry(wanted, origin, "done")])
        return list(found), audit_id

    def _search_entry(self, wanted: Search, origin: Origin, outcome: str, error_code: str | None = None) -> AuditEntry:
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation="search",
            outcome=outcome,
            error_code=error_code,
            entrance=origin.entrance,
            caller=origin.caller,
            channel=origin.channel,
            message_id=origin.message_id,
            transaction_id=wanted.transaction_id,
            digest=None if wanted.digest is None else "sha256:" + wanted.digest.hex(),
        )

    def _entry_of(self, wanted: VerificationRequest, signed_by: KeyVersion | None, origin: Origin) -> AuditEntry:
        return AuditEntry(
            time=timestamp(self._wall_clock()),
            operation="verify",
            outcome="done",
            entrance=origin.entrance,
            caller=origin.caller,
            channel=origin.channel,
            message_id=origin.message_id,
            key_alias=wanted.key_alias,
            key_label=signed_by.label if signed_by is not None else None,
            key_fingerprint=signed_by.fingerprint if signed_by is not None else None,
            algorithm=wanted.algorithm.name,
            digest="sha256:" + wanted.digest.hex(),
            signature_sha256="sha256:" + hashlib.sha256(wanted.signature).hexdigest(),
            detail="valid" if signed_by is not None else "invalid",
        )


def _signed(version: KeyVersion, wanted: VerificationRequest) -> bool:
    key = version.key
    return key is not None and verifies(key.public_key, wanted.algorithm, wanted.digest, wanted.signature)
