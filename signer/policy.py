"""May this caller use this key, and for this? Default deny."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from signer.errors import (
    CallerKilledError,
    KeyKilledError,
    NotAuthorisedError,
    SignerError,
    TransactionIdRequiredError,
)
from signer.signatures import ALGORITHMS, Algorithm
from signer.transactions import CONTENTS, SigningRequest

AUDITOR: Final = "auditor"
ROLES: Final = frozenset({AUDITOR})
SIGN: Final = "sign"
VERIFY: Final = "verify"
OPERATIONS: Final = (SIGN, VERIFY)
"""What can be granted with a key."""
_NO_SUCH_CALLER: Final = "default deny: no such caller"
MAX_BATCH: Final = 10_000
"""The most that any caller may bring in one call."""


class Use(Protocol):
    """What somebody wants to do with a key."""

    @property
    def key_alias(self) -> str:
        """Which key."""

    @property
    def algorithm(self) -> Algorithm:
        """With which algorithm."""

    @property
    def content(self) -> str:
        """Over what, one of `transactions.CONTENTS`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may do with one key."""

    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    contents: frozenset[str] = frozenset(CONTENTS)
    """Which of `transactions.CONTENTS`."""
    requires_transaction_id: bool = True
    """Whether each request must name its transaction, which is signed once for ever."""
    operations: frozenset[str] = frozenset(OPERATIONS)
    """Which of `OPERATIONS`."""


@dataclass(frozen=True, slots=True)
class CallerPolicy:
    """What one caller may do."""

    keys: Mapping[str, Grant]
    """By key alias; a key that is not here is denied."""
    roles: frozenset[str] = frozenset()
    """Which of `ROLES`."""
    max_batch: int = MAX_BATCH
    """Transactions in one call."""
    transactions_per_s: float | None = None
    """On average, in each task; None: no limit."""
    burst: int = 1
    """How many transactions may come at once after a pause, where there is a limit."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Who turned the kill switch for a key or a caller, and why."""

    by: str
    reason: str
    since: str
    """RFC 3339, UTC."""

    def told(self) -> str:
        """Say so in words."""
        return f"since {self.since} by {self.by}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Kills:
    """Everything that the kill switch stops."""

    keys: Mapping[str, Kill] = field(default_factory=dict)
    """By key alias."""
    callers: Mapping[str, Kill] = field(default_factory=dict)
    revived: Mapping[str, Kill] = field(default_factory=dict)
    """Who let what go on, by `key <alias>` and `caller <name>`: for the record, it stops nothing."""


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is refused."""

    error: SignerError
    rule: str
    """Which part of the policy decided, for who runs the service."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may use which key for what, and what is stopped; whole and unchanging: a decision is of one piece."""

    callers: Mapping[str, CallerPolicy]
    kills: Kills = field(default_factory=Kills)

    def authorise(self, caller: str, request: SigningRequest) -> None:
        """Return if `caller` may have `request` signed.

        Raises `CallerKilledError`, `NotAuthorisedError`, `KeyKilledError`, `TransactionIdRequiredError`.
        """
        denial = self.denial(caller, request)
        if denial is not None:
            raise denial.error

    def refuse_killed(self, caller: str, key_alias: str) -> None:
        """Return unless the kill switch stops it; raises `CallerKilledError`, `KeyKilledError`."""
        denial = self._caller_killed(caller) or self._key_killed(key_alias)
        if denial is not None:
            raise denial.error

    def has_role(self, caller: str, role: str) -> bool:
        """Tell whether `caller` has the role, such as `AUDITOR`; nobody has one while killed."""
        known = self.callers.get(caller)
        return known is not None and role in known.roles and caller not in self.kills.callers

    def max_batch(self, caller: str) -> int:
        """Give the most transactions that `caller` may bring in one call."""
        known = self.callers.get(caller)
        return MAX_BATCH if known is None else known.max_batch

    def is_halted(self, caller: str) -> bool:
        """Tell whether the kill switch stops everything that `caller` could ask for."""
        known = self.callers.get(caller)
        keys = () if known is None else known.keys
        return caller in self.kills.callers or (len(keys) > 0 and all(alias in self.kills.keys for alias in keys))

    def denial(self, caller: str, request: SigningRequest) -> Denial | None:
        """Say why `request` is refused; None if it is not.

        Who may not use a key does not learn whether it was killed.
        """
        denial = self._use_denial(caller, request, SIGN)
        grant = self._grant(caller, request.key_alias)
        if denial is None and grant is not None and grant.requires_transaction_id and not request.names_transaction:
            msg = "this key signs only what names its transaction: give a `transaction_id`"
            return Denial(TransactionIdRequiredError(msg), _rule(caller, request, "require_transaction_id"))
        return denial

    def verification_denial(self, caller: str, use: Use) -> Denial | None:
        """Say why `caller` is not told whether a signature is valid; None if it is.

        Auditors are told of every key, and of killed ones too: somebody has to look into what was signed.
        """
        return None if self.has_role(caller, AUDITOR) else self._use_denial(caller, use, VERIFY)

    def key_denial(self, caller: str, key_alias: str) -> Denial | None:
        """Say why a key is not described to `caller`; None if it is: who may use a key sees it, auditors see all."""
        if self.has_role(caller, AUDITOR) or self._grant(caller, key_alias) is not None:
            return self._caller_killed(caller)
        return self._caller_killed(caller) or self._default_denial(caller, key_alias)

    def key_use_denial(self, caller: str, key_alias: str, operation: str) -> Denial | None:
        """Say why `caller` may not use a key for `operation` at all, whatever it wants done; None if it may."""
        grant = self._grant(caller, key_alias)
        if grant is None or operation not in grant.operations:
            return self._caller_killed(caller) or self._default_denial(caller, key_alias, operation)
        return self._caller_killed(caller) or self._key_killed(key_alias)

    def stranger_denial(self, caller: str) -> Denial | None:
        """Say why nothing is told to `caller`; None if the policy names it."""
        known = caller in self.callers
        return self._caller_killed(caller) or (None if known else _not_authorised("service", _NO_SUCH_CALLER))

    def _use_denial(self, caller: str, use: Use, operation: str) -> Denial | None:
        grant = self._grant(caller, use.key_alias)
        denial = self.key_use_denial(caller, use.key_alias, operation)
        return denial or (_beyond(grant, caller, use) if grant is not None else None)

    def _grant(self, caller: str, key_alias: str) -> Grant | None:
        known = self.callers.get(caller)
        return None if known is None else known.keys.get(key_alias)

    def _default_denial(self, caller: str, key_alias: str, operation: str = "") -> Denial:
        if caller not in self.callers:
            return _not_authorised("key", _NO_SUCH_CALLER)
        if self._grant(caller, key_alias) is None:
            return _not_authorised("key", f"default deny: caller {caller} has no key {key_alias}")
        return _not_authorised("key for this", f"caller {caller}, key {key_alias}: operations, without {operation}")

    def _caller_killed(self, caller: str) -> Denial | None:
        kill = self.kills.callers.get(caller)
        if kill is None:
            return None
        msg = "the kill switch stops this caller until a person revives it"
        return Denial(CallerKilledError(msg), f"kill switch: caller {caller} {kill.told()}")

    def _key_killed(self, key_alias: str) -> Denial | None:
        kill = self.kills.keys.get(key_alias)
        if kill is None:
            return None
        msg = "the kill switch stops this key until a person revives it"
        return Denial(KeyKilledError(msg), f"kill switch: key {key_alias} {kill.told()}")


def policy_of(grants: Iterable[tuple[str, str, Grant]]) -> Policy:
    """Build a policy without limits and roles from who (caller) may use which key (alias) and for what."""
    keys: dict[str, dict[str, Grant]] = {}
    for caller, alias, grant in grants:
        keys.setdefault(caller, {})[alias] = grant
    return Policy({caller: CallerPolicy(granted) for caller, granted in keys.items()})


def _beyond(grant: Grant, caller: str, use: Use) -> Denial | None:
    if use.algorithm.name not in grant.algorithms:
        return _not_authorised("algorithm with this key", _rule(caller, use, "algorithms"))
    if use.content not in grant.contents:
        return _not_authorised("kind of content with this key", _rule(caller, use, "content"))
    return None


def _not_authorised(what: str, rule: str) -> Denial:
    return Denial(NotAuthorisedError(f"this caller may not use this {what}"), rule)


def _rule(caller: str, use: Use, member: str) -> str:
    return f"caller {caller}, key {use.key_alias}: {member}"
