"""The embedded sign-once ledger: one SQLite file, one process, one writer thread, one commit for all that waits."""

import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from signer import failpoints
from signer.errors import ClaimLostError, LedgerUnavailableError, SignerError
from signer.group_commit import GroupCommit
from signer.ledger import schema
from signer.ledger.claims import Claims
from signer.ledger.file import Place, connect, faults_named, hold, refuse_new, transaction
from signer.ledger.record import Holder, this_process
from signer.ledger.tidying import Elapsed, Tidying
from signer.metrics import Metrics
from signer.ports import Claim, Claimed, Signature
from signer.private_files import lock_exclusively, make_private_directory
from signer.settings import LedgerSettings

_TO_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode


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


@dataclass(frozen=True, slots=True)
class _Tidy:
    pass


_Change = _Take | _Complete | _Release | _Withdraw | _Tidy
_Answer = Claimed | Signature | SignerError | None


class SqliteLedger:
    """A `SignOnceLedger` in the file `path`, which this process alone may hold.

    `wall_clock` gives Unix seconds; what is forgotten is reckoned by `monotonic` ones. Raises `AlreadyRunningError`,
    `ConfigurationError` for a file of another kind or schema, or a new one unless it `may_be_new`,
    `LedgerUnavailableError`. When the file is taken away, claims and results are refused for good.
    """

    def __init__(
        self,
        path: Path,
        settings: LedgerSettings,
        metrics: Metrics,
        wall_clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        may_be_new: bool = True,
    ) -> None:
        self._path = path
        self._lease_s = settings.lease_s
        self._wall_clock = wall_clock
        with ExitStack() as stack, faults_named(path):
            make_private_directory(path.parent)
            lock = lock_exclusively(path.with_name(path.name + ".lock"), f"the ledger {path}")
            stack.callback(os.close, lock)
            # That file can be removed, and the ledger has other names where there are links to it.
            stack.callback(os.close, hold(path, may_be_new=may_be_new))
            self._connection = connect(path, settings.commit_timeout_s)
            stack.callback(self._connection.close)
            with transaction(self._connection):
                self._is_new = schema.version_of(self._connection) == 0
                if self._is_new and not may_be_new:
                    raise refuse_new(path)
                schema.bring_up(self._connection)
                self._claims = Claims(self._connection, self._register_opening())
            self._place = Place(path)
            self._commits: GroupCommit[_Change, _Answer] = GroupCommit(
                "ledger", self._commit, LedgerUnavailableError, settings.commit_timeout_s, metrics
            )
            elapsed = Elapsed(self._claims.latest(), wall_clock(), monotonic)
            self._tidying = Tidying(path, self._claims, settings.retention_s, self._ask_for_a_bite, elapsed)
            stack.callback(self._tidying.close)
            self._resources = stack.pop_all()

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
        wanted = [Claimed(claim, secrets.token_hex(16)) for claim in claims]
        try:
            answers = self._commits.submit([_Take(claimed) for claimed in wanted])
        except LedgerUnavailableError:
            # A commit that hung may still be made; nobody will use its leases.
            self.release(wanted)
            raise
        return [answer for answer in answers if answer is not None]

    def complete(self, results: Sequence[tuple[Claimed, Signature]]) -> list[SignerError | None]:
        """Keep the signatures for replays in one durable commit; see `SignOnceLedger`."""
        changes = [_Complete(claimed, _TO_JSON(signature.to_message())) for claimed, signature in results]
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

    def _register_opening(self) -> int:
        """Give this opening the number that its claims carry."""
        insert = "INSERT INTO openings (opened_at, owner) VALUES (?, ?) RETURNING number"
        (number,) = self._connection.execute(insert, (self._wall_clock(), this_process())).fetchone()
        return int(number)

    def _commit(self, changes: list[_Change]) -> list[_Answer]:
        with faults_named(self._path):
            self._place.require()
            now = self._wall_clock()
            self._tidying.begin(now, for_others=not all(isinstance(change, _Tidy) for change in changes))
            with transaction(self._connection):
                answers = [self._apply(change, now) for change in changes]
                failpoints.reach("ledger_writing")
            # Once more: what was committed into a file that lost its name meanwhile, the next process does not find.
            self._place.require()
        self._tidying.bound(sum(isinstance(answer, Claimed) and answer.is_first for answer in answers))
        return answers

    def _ask_for_a_bite(self) -> None:
        self._commits.post([_Tidy()])

    def _apply(self, change: _Change, now: float) -> _Answer:
        match change:
            case _Take(wanted):
                return self._take(wanted, now)
            case _Complete(claimed, signature):
                if self._claims.complete(claimed, signature, now):
                    return None
                return ClaimLostError("another owner took this transaction over, or its signature is kept already")
            case _Release(claimed):
                self._claims.release(claimed)
            case _Withdraw(claimed):
                self._claims.withdraw(claimed)
            case _Tidy():
                self._tidying.bite()
        return None

    def _take(self, wanted: Claimed, now: float) -> _Answer:
        lease_expires_at = now + self._lease_s
        if self._claims.bind(wanted.claim, wanted.token, now, lease_expires_at):
            return replace(wanted, is_first=True)
        record = self._claims.find(wanted.claim)
        answer = record.answer_to(wanted, now)
        if answer is None:
            holder = Holder(wanted.token, this_process(), now)
            self._claims.take_over(record.taken_over_by(holder, lease_expires_at), record.holder.token)
            return record.granted_to(wanted)
        return answer
