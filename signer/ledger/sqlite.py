"""The embedded sign-once ledger: one SQLite file, one process, one writer thread, one commit for all that waits."""

import json
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from signer.errors import (
    ClaimInProgressError,
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    LedgerUnavailableError,
    SignerError,
)
from signer.group_commit import GroupCommit
from signer.ledger.file import Place, connect, faults_named, refuse_new, transaction
from signer.metrics import Metrics
from signer.ports import Claim, Claimed, Signature
from signer.private_files import lock_exclusively, make_private_directory

_SCHEMA_VERSION: Final = 1
# A rowid table: rows grow when they are completed, and in a WITHOUT ROWID tree that splits pages all over the file
# (a million rows, random ids: 125 ms instead of 7 for completing a batch of 500).
_SCHEMA: Final = (
    "CREATE TABLE openings (number INTEGER PRIMARY KEY, opened_at REAL NOT NULL) STRICT",
    """
    CREATE TABLE claims (
        key_alias TEXT NOT NULL,
        transaction_id TEXT NOT NULL,
        digest BLOB NOT NULL,
        algorithm TEXT NOT NULL,
        token TEXT NOT NULL,
        opening INTEGER NOT NULL,
        claimed_at REAL NOT NULL,
        lease_expires_at REAL NOT NULL,
        signature TEXT,
        completed_at REAL,
        PRIMARY KEY (key_alias, transaction_id)
    ) STRICT
    """,
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)

# The whole rule: the digest of a row never changes; a claim is taken over only for the same digest and algorithm, while
# there is no signature, and after its lease. The file is held by one process at a time, so the leases of an earlier
# opening belong to nobody.
_BIND: Final = """
    INSERT INTO claims (key_alias, transaction_id, digest, algorithm, token, opening, claimed_at, lease_expires_at)
    VALUES (:key_alias, :transaction_id, :digest, :algorithm, :token, :opening, :now, :lease_expires_at)
    ON CONFLICT (key_alias, transaction_id) DO NOTHING
"""
_TAKE_OVER: Final = """
    UPDATE claims SET token = :token, opening = :opening, claimed_at = :now, lease_expires_at = :lease_expires_at
    WHERE key_alias = :key_alias AND transaction_id = :transaction_id AND signature IS NULL
        AND digest = :digest AND algorithm = :algorithm AND (lease_expires_at <= :now OR opening <> :opening)
"""
_FIND: Final = "SELECT digest, algorithm, signature FROM claims WHERE key_alias = ? AND transaction_id = ?"
_COMPLETE: Final = """
    UPDATE claims SET signature = ?, completed_at = ?
    WHERE key_alias = ? AND transaction_id = ? AND token = ? AND signature IS NULL
"""
_RELEASE: Final = """
    UPDATE claims SET lease_expires_at = 0
    WHERE key_alias = ? AND transaction_id = ? AND token = ? AND signature IS NULL
"""
# Only for a claim that bound its transaction: with its own token still there, nobody else ever worked on the row.
_WITHDRAW: Final = """
    DELETE FROM claims WHERE key_alias = ? AND transaction_id = ? AND token = ? AND signature IS NULL
"""


@dataclass(frozen=True, slots=True)
class _Take:
    wanted: Claimed


@dataclass(frozen=True, slots=True)
class _Complete:
    claimed: Claimed
    signature: str


@dataclass(frozen=True, slots=True)
class _Release:
    claimed: Claimed


@dataclass(frozen=True, slots=True)
class _Withdraw:
    claimed: Claimed


_Change = _Take | _Complete | _Release | _Withdraw
_Answer = Claimed | Signature | SignerError | None


class SqliteLedger:
    """A `SignOnceLedger` in the file `path`, which this process alone may hold.

    `lease_s` is how long a claim keeps others away; `wall_clock` gives Unix seconds. Raises `AlreadyRunningError`,
    `ConfigurationError` for a file of another kind or schema, or a new one unless it `may_be_new`,
    `LedgerUnavailableError`. When the file is taken away, claims and results are refused for good.
    """

    def __init__(
        self,
        path: Path,
        lease_s: float,
        commit_timeout_s: float,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        *,
        may_be_new: bool = True,
    ) -> None:
        self._path = path
        self._lease_s = lease_s
        self._wall_clock = wall_clock
        with ExitStack() as stack, faults_named(path):
            make_private_directory(path.parent)
            lock = lock_exclusively(path.with_name(path.name + ".lock"), f"the ledger {path}")
            stack.callback(os.close, lock)
            self._connection = connect(path, commit_timeout_s, may_be_new=may_be_new)
            stack.callback(self._connection.close)
            self._is_new = False
            self._opening = self._register_opening(may_be_new=may_be_new)
            self._place = Place(path)
            self._resources = stack.pop_all()
        self._commits: GroupCommit[_Change, _Answer] = GroupCommit(
            "ledger", self._commit, LedgerUnavailableError, commit_timeout_s, metrics
        )

    @property
    def healthy(self) -> bool:
        """False from a commit that failed or hangs until the next that succeeds."""
        return self._commits.healthy

    @property
    def is_new(self) -> bool:
        """Whether there was no ledger in the file when it was opened."""
        return self._is_new

    def problems(self) -> tuple[str, ...]:
        """Say why nothing can be claimed until a person has put the file back; empty while it is in its place."""
        try:
            self._place.require()
        except LedgerUnavailableError as error:
            return (error.message,)
        return ()

    def claim(self, claims: Sequence[Claim]) -> list[Claimed | Signature | SignerError]:
        """Bind every claim in one durable commit; see `SignOnceLedger`."""
        token = secrets.token_hex(16)
        wanted = [Claimed(claim, token) for claim in claims]
        try:
            answers = self._commits.submit([_Take(claimed) for claimed in wanted])
        except LedgerUnavailableError:
            # A commit that hung may still be made; nobody will use its leases.
            self.release(wanted)
            raise
        return [answer for answer in answers if answer is not None]

    def complete(self, results: Sequence[tuple[Claimed, Signature]]) -> list[SignerError | None]:
        """Keep the signatures for replays in one durable commit; see `SignOnceLedger`."""
        changes = [_Complete(claimed, json.dumps(signature.to_message())) for claimed, signature in results]
        return [answer if isinstance(answer, SignerError) else None for answer in self._commits.submit(changes)]

    def release(self, claims: Sequence[Claimed]) -> None:
        """End leases early, behind all that was asked before, without waiting for the disk; see `SignOnceLedger`."""
        self._commits.post([_Release(claimed) for claimed in claims])

    def withdraw(self, claims: Sequence[Claimed]) -> None:
        """Unbind what these claims bound, as `release` does its work; see `SignOnceLedger`."""
        self._commits.post([_Withdraw(claimed) for claimed in claims if claimed.is_first])

    def close(self) -> None:
        """Finish what is queued and let go of the file; later calls raise `LedgerUnavailableError`."""
        if self._commits.close():
            self._resources.close()

    def _register_opening(self, *, may_be_new: bool) -> int | None:
        """Give this opening the number that its claims carry, in a new or a known file."""
        with transaction(self._connection):
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            self._is_new = version == 0
            if self._is_new and not may_be_new:
                raise refuse_new(self._path)
            if self._is_new:
                for statement in _SCHEMA:
                    self._connection.execute(statement)
            elif version != _SCHEMA_VERSION:
                msg = f"the ledger has schema {version}, this version of the signer knows {_SCHEMA_VERSION}"
                raise ConfigurationError(msg)
            insert = "INSERT INTO openings (opened_at) VALUES (?)"
            return self._connection.execute(insert, (self._wall_clock(),)).lastrowid

    def _commit(self, changes: list[_Change]) -> list[_Answer]:
        with faults_named(self._path):
            self._place.require()
            now = self._wall_clock()
            with transaction(self._connection):
                answers = [self._apply(change, now) for change in changes]
            # Once more: what was committed into a file that lost its name meanwhile, the next process does not find.
            self._place.require()
        return answers

    def _apply(self, change: _Change, now: float) -> _Answer:
        match change:
            case _Take(wanted):
                return self._take(wanted, now)
            case _Complete(claimed, signature):
                if self._update_owned(_COMPLETE, (signature, now), claimed):
                    return None
                return ClaimLostError("another owner took this transaction over, or its signature is kept already")
            case _Release(claimed):
                self._update_owned(_RELEASE, (), claimed)
                return None
            case _Withdraw(claimed):
                self._update_owned(_WITHDRAW, (), claimed)
                return None

    def _take(self, wanted: Claimed, now: float) -> _Answer:
        claim = wanted.claim
        row = asdict(claim) | {"token": wanted.token, "opening": self._opening}
        row |= {"now": now, "lease_expires_at": now + self._lease_s}
        if self._connection.execute(_BIND, row).rowcount:
            return replace(wanted, is_first=True)
        if self._connection.execute(_TAKE_OVER, row).rowcount:
            return wanted
        key = (claim.key_alias, claim.transaction_id)
        digest, algorithm, signature = self._connection.execute(_FIND, key).fetchone()
        if (digest, algorithm) != (claim.digest, claim.algorithm):
            return ConflictError("this transaction is bound to another digest or algorithm")
        if signature is not None:
            return Signature.from_message(json.loads(signature))
        return ClaimInProgressError("another request is signing this transaction now")

    def _update_owned(self, statement: str, values: tuple[object, ...], claimed: Claimed) -> bool:
        claim = claimed.claim
        parameters = (*values, claim.key_alias, claim.transaction_id, claimed.token)
        return self._connection.execute(statement, parameters).rowcount == 1
