"""What the core needs from the outside: the values it exchanges with its edges, and the edges' contracts.

The words MUST and MUST NOT are normative (RFC 2119): the core's promises rest on them.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from signer.deadlines import Deadline
from signer.errors import SignerError
from signer.signatures import Algorithm


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, and in which message: one half of the answer to "what signed this?"."""

    entrance: str
    """`sqs`, `http` or `service`."""
    caller: str
    """The authenticated name the policy decides on, such as `queue:settlement-inbound`."""
    channel: str
    """The queue's name, or the client's address."""
    message_id: str
    """The SQS message id, or the HTTP request id."""
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that passed every check: the other half of the answer."""

    alias: str
    label: str
    fingerprint: str
    public_key: RSAPublicKey
    token_serial: str
    crypto_user: str

    @property
    def name(self) -> tuple[str, str]:
        """Alias and label: what tells it from every other version of every key."""
        return self.alias, self.label


class VersionState(StrEnum):
    """Where a version of a key stands in its rotation."""

    UPCOMING = "upcoming"
    """It is to sign from its `active_from` on; if that has passed, it was not ready in time and its elder signs on."""
    ACTIVE = "active"
    """It signs."""
    RETIRED = "retired"
    """It signs no more; what it signed is to be verified until its `verify_until`."""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One of the keys that an alias stands for in the course of time."""

    alias: str
    label: str
    state: VersionState
    fingerprint: str | None
    """Pinned in the settings, or found in the HSM; None if neither."""
    key: SigningKey | None
    """None while its public key is known to nobody here; such a version is not published."""
    active_from: datetime | None = None
    """As planned, UTC; None: since ever."""
    signs_from: datetime | None = None
    """UTC; later than planned where its key was found late: every task publishes it before one signs with it."""
    published_at: datetime | None = None
    """UTC; since when its key is known here, in this process."""
    verify_until: datetime | None = None
    """UTC; from then on it is no version of the alias any more. None: no end is set."""
    not_ready: str | None = None
    """Why it could not sign, fit for a stranger; None once it passed its checks and a test signature."""

    @property
    def ready(self) -> bool:
        """Whether it may sign when its time comes."""
        return self.not_ready is None


@dataclass(frozen=True, slots=True)
class SignTask:
    """One digest (32 bytes) to be signed by one key."""

    key: SigningKey
    algorithm: Algorithm
    digest: bytes


def let_all_pass(_task: SignTask) -> None:
    """Refuse nothing."""


@dataclass(frozen=True, slots=True)
class RawSignature:
    """What the HSM answered."""

    task: SignTask
    """What it was asked."""
    value: bytes
    sound: bool
    """Whether `value` verifies with the public key of the task; one that does not never leaves."""
    key_handle: int
    session_handle: int
    pool_wait_s: float
    hsm_sign_s: float
    """C_SignInit and C_Sign together."""
    verify_s: float


@dataclass(frozen=True, slots=True)
class Signature:
    """A released signature as it stands in signed batches, in HTTP answers and in the ledger."""

    algorithm: str
    key_alias: str
    key_label: str
    key_fingerprint: str
    digest: str
    """Base64 of the SHA-256."""
    value: str
    """Base64 of the signature."""
    signed_at: str
    """RFC 3339, UTC, microseconds."""
    audit_id: str

    def to_message(self) -> dict[str, str]:
        """Give the `signature` member of a transaction."""
        # Spelled out: `asdict` copies every value deeply, for ten times the price, three times a signature.
        return {
            "algorithm": self.algorithm,
            "key_alias": self.key_alias,
            "key_label": self.key_label,
            "key_fingerprint": self.key_fingerprint,
            "digest": self.digest,
            "value": self.value,
            "signed_at": self.signed_at,
            "audit_id": self.audit_id,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, str]) -> "Signature":
        """Read back what `to_message` gave."""
        return cls(**message)

    def value_bytes(self) -> bytes:
        """Give the signature itself."""
        return base64.b64decode(self.value)


@dataclass(frozen=True, slots=True)
class Claim:
    """The wish to sign `digest` as `(key_alias, transaction_id)`."""

    key_alias: str
    transaction_id: str
    digest: bytes
    algorithm: str
    key_label: str | None = field(default=None, compare=False)
    """The version of the key that it is to be signed with; it does not bind."""
    caller: str | None = field(default=None, compare=False)
    """Who asked; it does not bind either."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that was granted until its lease runs out; `token` fences off everyone else."""

    claim: Claim
    token: str
    is_first: bool = False
    """Whether it bound the transaction; else it took over a claim that someone had before."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What was claimed, and the signature that is kept for it; None while there is none."""

    claim: Claim
    """As it was made first."""
    signature: Signature | None


class SignatureRegister(Protocol):
    """What the ledger knows, for who asks and changes nothing; every call raises `LedgerUnavailableError`."""

    def peek(self, claim: Claim) -> Signature | SignerError | None:
        """Give what the ledger would answer to the claim now; None: it would be granted. MUST leave nothing behind."""
        ...

    def by_transaction(self, transaction_id: str) -> Sequence[Binding]:
        """Give every binding of a transaction, one for each key alias."""
        ...

    def by_digest(self, digest: bytes) -> Sequence[Binding]:
        """Give the newest bindings of a digest (32 bytes), so many as one answer may hold.

        MUST NOT cost more the more transactions there are. Raises `DigestNotIndexedError` where it would.
        """
        ...


class SignOnceLedger(Protocol):
    """The durable binding `(key alias, transaction_id) -> digest`."""

    def claim(self, claims: Sequence[Claim]) -> list[Claimed | Signature | SignerError]:
        """Bind every claim in one durable commit, and answer for each, in order.

        `Claimed`: MUST be durable before this returns; one that is taken over MUST come with the key label that it was
        bound with. `Signature`: the same digest was signed before; this is what
        was released. `ConflictError`: bound to another digest or algorithm. `ClaimInProgressError`: someone else's
        lease runs. Two claims MUST NOT both be granted for one transaction at one time. Raises
        `LedgerUnavailableError`; what it bound then stays bound.
        """
        ...

    def complete(self, results: Sequence[tuple[Claimed, Signature]]) -> list[SignerError | None]:
        """Keep the signatures for replays, in one durable commit; `ClaimLostError` for a token no longer valid.

        A signature that is kept already MUST NOT be overwritten. Raises `LedgerUnavailableError`.
        """
        ...

    def release(self, claims: Sequence[Claimed]) -> None:
        """End leases early so that another try need not wait; the digests stay bound. Raises nothing."""
        ...

    def withdraw(self, claims: Sequence[Claimed]) -> None:
        """Undo claims that were granted to this caller and never shown to the HSM. Raises nothing.

        MUST only delete rows that this token created and that carry no signature: a claim that was taken over stays
        bound, for its first owner may have shown it.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened, before the chain gives it its place."""

    time: str
    """RFC 3339, UTC, microseconds."""
    operation: str
    """`sign`, `probe`, `verify`, `dry_run`, `search`,
    `authenticate`, `admit`, `authorise`, `quarantine`, `key.drifted`, `key.rotated`, `key.overdue`, `hsm.breaker`,
    `policy.loaded`, `policy.changed`, `policy.refused`, `policy.killed`, `policy.revived`, `store.begin`,
    `service.start`, `service.stop`, `audit.repair`."""
    outcome: str
    """`signed`, `replayed`, `refused` (never), `failed` (not now), `done`."""
    error_code: str | None = None
    entrance: str | None = None
    caller: str | None = None
    channel: str | None = None
    message_id: str | None = None
    batch_id: str | None = None
    transaction_id: str | None = None
    claimed_at: str | None = None
    """When the version of the key was chosen, right before the claim; RFC 3339, UTC, microseconds.

    None for a claim taken over: an earlier one had chosen.
    """
    key_alias: str | None = None
    key_label: str | None = None
    key_fingerprint: str | None = None
    key_handle: int | None = None
    algorithm: str | None = None
    mechanism: str | None = None
    token_serial: str | None = None
    session_handle: int | None = None
    crypto_user: str | None = None
    digest: str | None = None
    """`sha256:<hex>` of the canonical bytes."""
    signature_sha256: str | None = None
    """`sha256:<hex>` of the signature."""
    replay_of: str | None = None
    """The audit id of the record that first released this signature."""
    duration_s: float | None = None
    detail: str | None = None
    """For people; never input."""


class AuditLog(Protocol):
    """The hash-chained record of everything that was signed or refused."""

    def append(self, entries: Sequence[AuditEntry]) -> list[str]:
        """Chain the entries and give their audit ids, in order.

        MUST return only when every entry is durable. Raises `AuditUnavailableError`, also when that takes too long;
        the caller MUST then release nothing.
        """
        ...


class KeyRing(Protocol):
    """The checked keys of the HSM, by alias."""

    def aliases(self) -> tuple[str, ...]:
        """Name every configured key."""
        ...

    def key(self, alias: str, at: datetime | None = None) -> SigningKey:
        """Give the checked key that is in force `at` that moment (UTC), by default now.

        MUST be the youngest version whose time has come and that passed its checks and a test signature; one that is
        found late MUST be among the `versions`, with its key, for some look intervals before. Raises `UnknownKeyError`,
        and `KeyNotReadyError` if there is none.
        """
        ...

    def versions(self, alias: str, at: datetime | None = None) -> Sequence[KeyVersion]:
        """Give what the alias stands for, eldest first, as it is `at` that moment (UTC), by default now.

        At most one is active. A version past its `verify_until` MUST NOT be among them. Raises `UnknownKeyError`.
        """
        ...

    def prove(self, key: SigningKey, error: SignerError | None, *, hsm_signs: bool) -> None:
        """Learn what became of a version's test signature (None: it verified), and whether the HSM signs at present.

        A version that once made one MUST stay ready while the HSM is in trouble: every task changes at one moment.
        """
        ...

    def problems(self) -> tuple[str, ...]:
        """Say why nothing can be signed at present; empty while signatures come, or may."""
        ...

    def check_keys(self) -> None:
        """Look at every key again; one that is no longer as it was at start MUST NOT sign from now on."""
        ...

    def take_incidents(self) -> list[AuditEntry]:
        """Give, once, what happened since the last call and belongs into the audit log: drift, the breaker."""
        ...

    def sign(
        self,
        tasks: Sequence[SignTask],
        deadline: Deadline,
        *,
        probing: bool = False,
        refuse: Callable[[SignTask], None] = let_all_pass,
    ) -> list[RawSignature | SignerError]:
        """Sign every task, spread over the signing sessions, and answer for each, in order.

        `refuse` MUST be called right before each C_Sign; what it raises is the answer, and nothing is signed. Every
        signature MUST be verified before its session signs again. A session that failed in an unknown way, or whose
        signature did not verify, MUST NOT be used again; after two in a row that did not, nothing MUST be signed until
        a person has looked. While there are `problems`, only who is `probing` reaches
        the HSM.
        """
        ...
