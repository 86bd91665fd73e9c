"""May this caller use this key, and for this? Default deny."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from signer.errors import (
    CallerKilledError,
    KeyKilledError,
    NotAuthorisedError,
    SignerError,
    TransactionIdRequiredError,
)
from signer.signatures import ALGORITHMS
from signer.transactions import CONTENTS, SigningRequest

AUDITOR: Final = "auditor"
ROLES: Final = frozenset({AUDITOR})
MAX_BATCH: Final = 10_000
"""The most that any caller may bring in one call."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may have signed with one key."""

    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    contents: frozenset[str] = frozenset(CONTENTS)
    """Which of `transactions.CONTENTS`."""
    requires_transaction_id: bool = True
    """Whether each request must name its transaction, which is signed once for ever."""


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
        known = self.callers.get(caller)
        grant = None if known is None else known.keys.get(request.key_alias)
        if grant is None:
            missing = "no such caller" if known is None else f"caller {caller} has no key {request.key_alias}"
            return self._caller_killed(caller) or _not_authorised("key", f"default deny: {missing}")
        return self._caller_killed(caller) or self._key_killed(request.key_alias) or _beyond(grant, caller, request)

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


def _beyond(grant: Grant, caller: str, request: SigningRequest) -> Denial | None:
    if request.algorithm.name not in grant.algorithms:
        return _not_authorised("algorithm with this key", _rule(caller, request, "algorithms"))
    if request.content not in grant.contents:
        return _not_authorised("kind of content with this key", _rule(caller, request, "content"))
    if grant.requires_transaction_id and not request.names_transaction:
        msg = "this key signs only what names its transaction: give a `transaction_id`"
        return Denial(TransactionIdRequiredError(msg), _rule(caller, request, "require_transaction_id"))
    return None


def _not_authorised(what: str, rule: str) -> Denial:
    return Denial(NotAuthorisedError(f"this caller may not use this {what}"), rule)


def _rule(caller: str, request: SigningRequest, member: str) -> str:
    return f"caller {caller}, key {request.key_alias}: {member}"
