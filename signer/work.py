"""One transaction on its way through the core: what each stage learns about it, and what it becomes in the end."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from signer.errors import ConflictError, SignatureInvalidError, SignerError, UnavailableError
from signer.metrics import Stopwatch
from signer.ports import AuditEntry, Claim, Claimed, KeyRing, Origin, RawSignature, Signature, SigningKey
from signer.refusal_bounds import Record, RefusalBounds
from signer.transactions import SigningRequest

_SECURITY_EVENT: Final = "security event"


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that may leave the process."""

    signature: Signature
    replayed: bool
    """True when it was made for an earlier request and read from the ledger."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No signature, and why."""

    error: SignerError
    audit_id: str | None = None
    """Of the record that tells of it, if there is one: refusals by the policy that are too many have none."""


Outcome = Signed | Refused


@dataclass(slots=True)
class Work:
    """One transaction between its request and its outcome; the first error ends it."""

    request: SigningRequest
    origin: Origin
    key: SigningKey | None = None
    chosen_at: str | None = None
    """When `key` was chosen among the versions of its alias."""
    claimed: Claimed | None = None
    raw: RawSignature | None = None
    signature: Signature | None = None
    replayed: bool = False
    completed: bool = False
    audit_id: str | None = None
    error: SignerError | None = None

    @property
    def unsigned(self) -> bool:
        """Whether the HSM has yet to sign it."""
        return self.error is None and self.signature is None and self.raw is None

    @property
    def outcome_name(self) -> str:
        """One of `signed`, `replayed`, `refused` (never) and `failed` (not now)."""
        if self.error is not None:
            return "failed" if self.error.retryable else "refused"
        return "replayed" if self.replayed else "signed"

    @property
    def is_claimed_as_chosen(self) -> bool:
        """Whether the claim names the version that was chosen; one of an earlier try may name another."""
        label = self.claimed.claim.key_label if self.claimed is not None else None
        return label is None or self.key is None or label == self.key.label

    def claim(self) -> Claim:
        """Give the claim that must be durable before the HSM is asked."""
        request = self.request
        label = self.key.label if self.key is not None else None
        name = request.algorithm.name
        return Claim(request.key_alias, request.transaction_id, request.digest, name, label, self.origin.caller)

    def accept(self, answer: Claimed | Signature | SignerError) -> None:
        """Take the ledger's answer to the claim."""
        match answer:
            case Claimed():
                self.claimed = answer
            case Signature():
                self.signature, self.replayed = answer, True
            case SignerError():
                self.error = answer

    def forget_claim(self) -> Claimed:
        """Give the claim away, to be withdrawn."""
        claimed, self.claimed = self.claimed, None
        if claimed is None:  # pragma: no cover - only those are asked that have one
            raise AssertionError
        return claimed

    def keep_to(self, key: SigningKey) -> None:
        """Be signed with another version than the one in force, for that is what was claimed before."""
        if key is not self.key:
            self.key, self.chosen_at = key, None

    def is_sound(self) -> bool:
        """Tell whether the HSM's answer verified, and is the answer to this request: not to another of the batch."""
        raw = self.raw
        return (
            raw is not None
            and raw.sound
            and raw.task.key is self.key
            and raw.task.algorithm is self.request.algorithm
            and raw.task.digest == self.request.digest
        )

    def attach_signature(self, signed_at: str, audit_id: str) -> None:
        """Make the verified and audited answer of the HSM the signature that is kept and released."""
        self.audit_id = audit_id
        if self.error is not None or self.key is None or self.raw is None:
            return
        self.signature = Signature(
            algorithm=self.request.algorithm.name,
            key_alias=self.key.alias,
            key_label=self.key.label,
            key_fingerprint=self.key.fingerprint,
            digest=base64.b64encode(self.request.digest).decode("ascii"),
            value=base64.b64encode(self.raw.value).decode("ascii"),
            signed_at=signed_at,
            audit_id=audit_id,
        )

    @property
    def is_security_event(self) -> bool:
        """Whether somebody has to look: other content came under the same id, or a signature did not verify."""
        return isinstance(self.error, ConflictError | SignatureInvalidError)

    def outcome(self) -> Outcome:
        """Give what the caller learns."""
        if self.error is None and self.signature is not None:
            return Signed(self.signature, self.replayed)
        return Refused(self.error or UnavailableError("the transaction was not signed"), self.audit_id)

    def tell_times(self, watch: Stopwatch) -> None:
        """Tell how long it waited for a session and was in the HSM, if it got there."""
        if self.raw is not None:
            watch.add("pool_wait", self.raw.pool_wait_s)
            watch.add("hsm_sign", self.raw.hsm_sign_s)
            watch.add("verify", self.raw.verify_s)

    def audit_entry(self, now: str) -> AuditEntry:
        """Describe what happened, for the auditor who asks what signed this."""
        origin = self.origin
        return AuditEntry(
            time=now,
            operation="sign",
            outcome=self.outcome_name,
            error_code=self.error.code if self.error is not None else None,
            entrance=origin.entrance,
            caller=origin.caller,
            channel=origin.channel,
            message_id=origin.message_id,
            batch_id=origin.batch_id,
            transaction_id=self.request.transaction_id,
            claimed_at=self.chosen_at if self.raw is not None else None,
            key_alias=self.request.key_alias,
            algorithm=self.request.algorithm.name,
            mechanism=self.request.algorithm.mechanism,
            digest="sha256:" + self.request.digest.hex(),
            detail=_SECURITY_EVENT if self.is_security_event else None,
            **self._what_signed(),
        )

    def _what_signed(self) -> dict[str, Any]:
        if self.raw is not None and self.key is not None:
            return what_signed(self.key, self.raw)
        return _what_signed_before(self.signature) if self.signature is not None else {}


class VersionsInForce:
    """The versions of the keys in force at one moment, each looked up when it is first asked for."""

    def __init__(self, key_ring: KeyRing, moment: datetime) -> None:
        self.chosen_at = timestamp(moment)
        self._key_ring = key_ring
        self._moment = moment
        self._keys: dict[str, SigningKey] = {}

    def key(self, alias: str) -> SigningKey:
        """Give the key in force; raises `UnknownKeyError`, `KeyNotReadyError`."""
        if alias not in self._keys:
            self._keys[alias] = self._key_ring.key(alias, self._moment)
        return self._keys[alias]

    def claimed(self, works: Sequence[Work]) -> list[SigningKey]:
        """Give the versions that claims were bound with and that can sign still, eldest first."""
        labels = {(work.claimed.claim.key_alias, work.claimed.claim.key_label) for work in works if work.claimed}
        versions = [item for alias in self._keys for item in self._key_ring.versions(alias, self._moment)]
        return [item.key for item in versions if item.key is not None and item.ready and item.key.name in labels]


def keep_versions(works: Sequence[Work], versions: VersionsInForce, *, whole: bool) -> list[Work]:
    """Let what an earlier try had claimed be signed with the version of that claim; give what has to be claimed anew.

    A batch that is signed as a `whole` has one version, the eldest that it was ever claimed with: the try before
    crossed the instant of a rotation, and had not come to the end of its claims.
    """
    held = [work for work in works if work.claimed is not None]
    others = [work for work in held if not work.is_claimed_as_chosen]
    for group in [held] if whole and others else [[work] for work in others]:
        for key in versions.claimed(group)[:1]:
            for work in group:
                work.keep_to(key)
    anew = [work for work in held if not work.is_claimed_as_chosen] if whole else []
    return [work for work in anew if work.claimed is not None and work.claimed.is_first]


def records_of(works: Sequence[Work], now: str, bounds: RefusalBounds) -> list[Record[Work]]:
    """Give what is to be recorded of a call: of each transaction, unless all were refused alike, or too many were."""
    if not works:
        return []

    def refusal_of(work: Work) -> SignerError | None:
        # What was claimed has its record in any case: the kill switch was turned only then.
        return work.error if work.claimed is None else None

    return bounds.records(works[0].origin.caller, works, refusal_of, lambda work: work.audit_entry(now))


def timestamp(moment: datetime) -> str:
    """Format a UTC moment as RFC 3339 with microseconds and `Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def what_signed(key: SigningKey, raw: RawSignature) -> dict[str, Any]:
    """Give the members of an `AuditEntry` that say what signed: key, handle, token, session, Crypto User, hash."""
    return {
        "key_label": key.label,
        "key_fingerprint": key.fingerprint,
        "key_handle": raw.key_handle,
        "token_serial": key.token_serial,
        "session_handle": raw.session_handle,
        "crypto_user": key.crypto_user,
        "signature_sha256": "sha256:" + hashlib.sha256(raw.value).hexdigest(),
        "duration_s": round(raw.hsm_sign_s, 6),
    }


def _what_signed_before(signature: Signature) -> dict[str, Any]:
    return {
        "key_label": signature.key_label,
        "key_fingerprint": signature.key_fingerprint,
        "signature_sha256": "sha256:" + hashlib.sha256(signature.value_bytes()).hexdigest(),
        "replay_of": signature.audit_id,
    }
