"""The HSM, the ledger and the audit log in memory: they keep the contracts of `signer.ports`, and fail when told to.

A test builds one with `simulation = simulate({"settlement": frozenset({"queue:inbound"})})`, then says what goes wrong,
as in `simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))`, or holds calls up: `with
simulation.key_ring.held() as held: held.wait_for(1)`. The service over it is real, and so are its signatures.
"""

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from prometheus_client import CollectorRegistry

from signer.authority import Authority
from signer.deadlines import Deadline
from signer.errors import (
    ClaimInProgressError,
    ClaimLostError,
    ConflictError,
    KeyNotReadyError,
    SignerError,
    UnknownKeyError,
)
from signer.inquiries import Inquiries
from signer.metrics import Metrics
from signer.policy import Grant, policy_of
from signer.ports import (
    AuditEntry,
    Binding,
    Claim,
    Claimed,
    KeyVersion,
    RawSignature,
    Signature,
    SigningKey,
    SignTask,
    VersionState,
    let_all_pass,
)
from signer.rehearsal import Rehearsal
from signer.signatures import fingerprint
from signer.signing import SigningService
from signer.versions import Candidate, Standing, states
from tests.scripted import Faults, Holdable

_FIRST: Final = "-key-2028"


def private_key(name: str) -> rsa.RSAPrivateKey:
    """A real RSA-2048 key, made once for each label in a test run; an alias stands for its first label."""
    return _private_key(name.removesuffix(_FIRST))


@functools.cache
def _private_key(_name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(slots=True)
class SimulatedVersion:
    """One version of a simulated key; a test may change it at any time."""

    key: SigningKey
    active_from: datetime | None = None
    verify_until: datetime | None = None
    not_ready: str | None = None
    known: bool = True
    """Whether its public key is known."""


class SimulatedKeyRing(Holdable):
    """A `KeyRing` of software keys; its signatures are real, and its calls of `sign` can be held up."""

    def __init__(self, *aliases: str) -> None:
        super().__init__()
        self._versions = {alias: [SimulatedVersion(_signing_key(alias, f"{alias}{_FIRST}"))] for alias in aliases}
        self._faults = Faults()
        self._lock = threading.Lock()
        self.troubles: tuple[str, ...] = ()
        """What `problems` gives."""
        self.incidents: list[AuditEntry] = []
        """What the next `take_incidents` gives."""
        self.signed: list[SignTask] = []
        """Everything it ever signed."""

    def fail_next(self, error: Exception, times: int = 1) -> None:
        """Let the next calls of `sign` answer `error` for every task, or raise it if it is none of ours."""
        self._faults.add(error, times)

    def add_version(
        self, alias: str, label: str, active_from: datetime, *, elder_until: datetime | None = None
    ) -> SimulatedVersion:
        """Plan the next version of a key, with a software key of its own; the one before is over `elder_until`."""
        self._versions[alias][-1].verify_until = elder_until
        version = SimulatedVersion(_signing_key(alias, label), active_from)
        self._versions[alias].append(version)
        return version

    def not_ready(self, alias: str, why: str) -> None:
        """Let no version of a key be ready."""
        for version in self._versions[alias]:
            version.not_ready = why

    def aliases(self) -> tuple[str, ...]:
        return tuple(self._versions)

    def key(self, alias: str, at: datetime | None = None) -> SigningKey:
        for version in self.versions(alias, at):
            if version.state is VersionState.ACTIVE and version.key is not None:
                return version.key
        msg = "no version of this key is ready to sign"
        raise KeyNotReadyError(msg)

    def versions(self, alias: str, at: datetime | None = None) -> Sequence[KeyVersion]:
        try:
            versions = self._versions[alias]
        except KeyError:
            msg = "no key with this alias is configured"
            raise UnknownKeyError(msg) from None
        candidates = [
            Candidate(item.active_from, item.verify_until, Standing.NOT_READY if item.not_ready else Standing.READY)
            for item in versions
        ]
        return [
            _key_version(version, state)
            for version, state in zip(versions, states(candidates, at or datetime.now(UTC)), strict=True)
            if state is not None
        ]

    def prove(self, key: SigningKey, error: SignerError | None, *, hsm_signs: bool) -> None:
        version = next(item for item in self._versions[key.alias] if item.key is key)
        if error is None:
            version.not_ready = None
        elif hsm_signs and self.key(key.alias) is not key:
            version.not_ready = error.message

    def problems(self) -> tuple[str, ...]:
        return self.troubles

    def check_keys(self) -> None:
        return

    def take_incidents(self) -> list[AuditEntry]:
        taken, self.incidents = self.incidents, []
        return taken

    def sign(
        self,
        tasks: Sequence[SignTask],
        deadline: Deadline,
        *,
        probing: bool = False,
        refuse: Callable[[SignTask], None] = let_all_pass,
    ) -> list[RawSignature | SignerError]:
        del probing
        self._pass_by()
        try:
            self._faults.strike()
            deadline.check()
        except SignerError as error:
            return [error for _ in tasks]
        return [self._sign(task, refuse) for task in tasks]

    def _sign(self, task: SignTask, refuse: Callable[[SignTask], None]) -> RawSignature | SignerError:
        try:
            refuse(task)
        except SignerError as error:
            return error
        with self._lock:
            self.signed.append(task)
        return raw_signature(task)


@dataclass(slots=True)
class _Row:
    claim: Claim
    token: str | None = None
    """Of the lease that runs; None when nobody holds one."""
    signature: Signature | None = None


def _name(claimed: Claimed) -> tuple[str, str]:
    return claimed.claim.key_alias, claimed.claim.transaction_id


class SimulatedLedger:
    """A `SignOnceLedger` whose leases never run out by themselves."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._lock = threading.Lock()
        self._tokens = 0
        self._claim_faults = Faults()
        self._complete_faults = Faults()
        self._peek_faults = Faults()
        self._search_faults = Faults()
        self.sizes: dict[str, list[int]] = {"claim": [], "complete": [], "release": [], "withdraw": []}
        """How many transactions each call brought."""

    def fail_next_claim(self, error: Exception, times: int = 1, after: int = 0) -> None:
        """Let calls of `claim` raise `error`, once `after` more have gone well."""
        self._claim_faults.add(error, times, after)

    def fail_next_complete(self, error: Exception, times: int = 1, after: int = 0) -> None:
        """Let calls of `complete` raise `error`, once `after` more have gone well."""
        self._complete_faults.add(error, times, after)

    def expire_leases(self) -> None:
        """Do what time does after a crash: every claim may be taken over."""
        with self._lock:
            for row in self._rows.values():
                row.token = None

    def rewrite(self, key_alias: str, transaction_id: str, *, key_label: str) -> None:
        """Make a kept signature one that was made under another label of the key."""
        with self._lock:
            row = self._rows[key_alias, transaction_id]
            assert row.signature is not None
            row.signature = replace(row.signature, key_label=key_label)

    @property
    def bound(self) -> dict[tuple[str, str], bytes]:
        """Every `(key alias, transaction_id)` that was claimed and not withdrawn, with its digest."""
        with self._lock:
            return {name: row.claim.digest for name, row in self._rows.items()}

    def claim(self, claims: Sequence[Claim]) -> list[Claimed | Signature | SignerError]:
        self._claim_faults.strike()
        self.sizes["claim"].append(len(claims))
        with self._lock:
            return [self._claim(claim) for claim in claims]

    def complete(self, results: Sequence[tuple[Claimed, Signature]]) -> list[SignerError | None]:
        self._complete_faults.strike()
        self.sizes["complete"].append(len(results))
        with self._lock:
            return [self._complete(claimed, signature) for claimed, signature in results]

    def peek(self, claim: Claim) -> Signature | SignerError | None:
        """What `claim` would give; None: it would be granted."""
        self._peek_faults.strike()
        with self._lock:
            row = self._rows.get((claim.key_alias, claim.transaction_id))
        if row is None:
            return None
        if row.claim != claim:
            return ConflictError("this transaction is bound to other content")
        busy = ClaimInProgressError("this transaction is being signed by another request")
        return row.signature or (busy if row.token is not None else None)

    def fail_next_peek(self, error: Exception, times: int = 1) -> None:
        """Let calls of `peek` raise `error`."""
        self._peek_faults.add(error, times)

    def fail_next_search(self, error: Exception, times: int = 1) -> None:
        """Let calls of `by_transaction` raise `error`."""
        self._search_faults.add(error, times)

    def by_transaction(self, transaction_id: str) -> list[Binding]:
        self._search_faults.strike()
        return self._bindings(lambda claim: claim.transaction_id == transaction_id)

    def by_digest(self, digest: bytes) -> list[Binding]:
        return self._bindings(lambda claim: claim.digest == digest)

    def _bindings(self, wanted: Callable[[Claim], bool]) -> list[Binding]:
        with self._lock:
            return [Binding(row.claim, row.signature) for row in self._rows.values() if wanted(row.claim)]

    def release(self, claims: Sequence[Claimed]) -> None:
        self.sizes["release"].append(len(claims))
        with self._lock:
            for claimed in claims:
                row = self._rows.get(_name(claimed))
                if row is not None and row.token == claimed.token:
                    row.token = None

    def withdraw(self, claims: Sequence[Claimed]) -> None:
        self.sizes["withdraw"].append(len(claims))
        with self._lock:
            for claimed in claims:
                row = self._rows.get(_name(claimed))
                if claimed.is_first and row is not None and row.token == claimed.token and row.signature is None:
                    del self._rows[_name(claimed)]

    def _claim(self, claim: Claim) -> Claimed | Signature | SignerError:
        is_first = (claim.key_alias, claim.transaction_id) not in self._rows
        row = self._rows.setdefault((claim.key_alias, claim.transaction_id), _Row(claim))
        if row.claim != claim:
            return ConflictError("this transaction is bound to other content")
        if row.signature is not None:
            return row.signature
        if row.token is not None:
            return ClaimInProgressError("this transaction is being signed by another request")
        self._tokens += 1
        row.token = f"token-{self._tokens}"
        return Claimed(row.claim, row.token, is_first)

    def _complete(self, claimed: Claimed, signature: Signature) -> SignerError | None:
        row = self._rows[_name(claimed)]
        if row.token != claimed.token or row.signature is not None:
            return ClaimLostError("another owner took the claim over")
        row.token, row.signature = None, signature
        return None


class SimulatedAuditLog(Holdable):
    """An `AuditLog` that keeps its entries in a list; its calls can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self._faults = Faults()
        self._lock = threading.Lock()
        self.entries: list[AuditEntry] = []
        self.sizes: list[int] = []
        """How many entries each call brought."""

    def fail_next(self, error: Exception, times: int = 1, after: int = 0) -> None:
        """Let calls of `append` raise `error` and keep nothing, once `after` more have gone well."""
        self._faults.add(error, times, after)

    def append(self, entries: Sequence[AuditEntry]) -> list[str]:
        self._pass_by()
        self._faults.strike()
        self.sizes.append(len(entries))
        with self._lock:
            first = len(self.entries)
            self.entries.extend(entries)
            return [str(UUID(int=first + index)) for index in range(len(entries))]

    def of(self, operation: str) -> list[AuditEntry]:
        """Give the entries of one operation, such as `quarantine`."""
        with self._lock:
            return [entry for entry in self.entries if entry.operation == operation]


@dataclass(frozen=True)
class Simulation:
    """A real `SigningService` over simulated edges."""

    key_ring: SimulatedKeyRing
    ledger: SimulatedLedger
    audit: SimulatedAuditLog
    authority: Authority
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))

    @functools.cached_property
    def service(self) -> SigningService:
        """The core."""
        return SigningService(
            self.key_ring, self.ledger, self.audit, self.authority, self.metrics, lambda: datetime.now(UTC)
        )

    @functools.cached_property
    def inquiries(self) -> Inquiries:
        """What signs nothing."""
        return Inquiries(self.key_ring, self.ledger, self.audit, self.authority, lambda: datetime.now(UTC))

    @functools.cached_property
    def rehearsal(self) -> Rehearsal:
        """What tries."""
        return Rehearsal(self.key_ring, self.ledger, self.audit, self.authority, lambda: datetime.now(UTC))


def simulate(callers_by_key: Mapping[str, frozenset[str]], *, require_transaction_id: bool = True) -> Simulation:
    """Build a service with one key for each alias, which the named callers may use."""
    key_ring = SimulatedKeyRing(*callers_by_key)
    grant = Grant(requires_transaction_id=require_transaction_id)
    policy = policy_of((caller, alias, grant) for alias, callers in callers_by_key.items() for caller in callers)
    authority = Authority(policy, time.monotonic)
    return Simulation(key_ring, SimulatedLedger(), SimulatedAuditLog(), authority)


def _key_version(version: SimulatedVersion, state: VersionState) -> KeyVersion:
    key = version.key
    return KeyVersion(
        alias=key.alias,
        label=key.label,
        state=state,
        fingerprint=key.fingerprint,
        key=key if version.known else None,
        active_from=version.active_from,
        verify_until=version.verify_until,
        not_ready=version.not_ready,
    )


def _signing_key(alias: str, label: str) -> SigningKey:
    public_key = private_key(label).public_key()
    return SigningKey(alias, label, fingerprint(public_key), public_key, "SIM0001", "crypto_user")


def raw_signature(task: SignTask) -> RawSignature:
    """Sign with a software key."""
    value = private_key(task.key.label).sign(task.digest, task.algorithm.padding, Prehashed(hashes.SHA256()))
    return RawSignature(
        task, value, sound=True, key_handle=7, session_handle=11, pool_wait_s=0.0, hsm_sign_s=0.001, verify_s=0.0
    )
