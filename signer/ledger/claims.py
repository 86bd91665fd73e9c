"""The claims in the embedded ledger: every statement that binds, completes or forgets one."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from signer.errors import LedgerUnavailableError
from signer.ledger.record import Holder, Record, holders_from_text, holders_to_text
from signer.ports import Claim, Claimed, Signature

# The name first, for it decides; one that is free of one index may stand in the other.
_BIND_NAME: Final = """
    INSERT INTO new_names (transaction_id, key_alias, number)
    SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM names WHERE transaction_id = ?1 AND key_alias = ?2)
    ON CONFLICT DO NOTHING
"""
_BIND: Final = """
    INSERT INTO claims (number, transaction_id, key_alias, digest, algorithm, token, opening, claimed_at,
        lease_expires_at, key_label, caller)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_COLUMNS: Final = """
    claims.transaction_id, claims.key_alias, digest, algorithm, token, opening, owner, claimed_at, lease_expires_at,
    take_overs, former, signature, completed_at, key_label, caller
"""
_TABLES: Final = """
    all_names JOIN claims ON claims.number = all_names.number JOIN openings ON openings.number = claims.opening
"""
_NUMBER: Final = "(SELECT number FROM all_names WHERE transaction_id = ? AND key_alias = ?)"
_FIND: Final = f"""
    SELECT {_COLUMNS} FROM claims JOIN openings ON openings.number = claims.opening WHERE claims.number = {_NUMBER}
"""  # noqa: S608 - put together from the constants above
_FIND_ALL: Final = f"""
    SELECT {_COLUMNS} FROM {_TABLES} WHERE all_names.transaction_id = ? ORDER BY all_names.key_alias
"""  # noqa: S608
FIND_DIGEST: Final = f"""
    SELECT {_COLUMNS} FROM claims JOIN openings ON openings.number = claims.opening
    WHERE digest = ?1 AND claims.number IN (
        SELECT number FROM digests WHERE digest = ?1
        UNION ALL SELECT number FROM claims WHERE number > (SELECT until FROM digests_indexed) AND digest = ?1
    )
    ORDER BY claims.number DESC LIMIT ?2
"""  # noqa: S608
_UNINDEXED: Final = """
    SELECT digest, number FROM claims WHERE number > (SELECT until FROM digests_indexed) ORDER BY number LIMIT ?
"""
_OWN: Final = f"WHERE number = {_NUMBER} AND token = ? AND signature IS NULL"
_TAKE_OVER: Final = f"""
    UPDATE claims SET token = ?, opening = ?, claimed_at = ?, lease_expires_at = ?, take_overs = ?, former = ? {_OWN}
"""  # noqa: S608
_COMPLETE: Final = f"UPDATE claims SET signature = ?, completed_at = ? {_OWN}"  # noqa: S608
_RELEASE: Final = f"UPDATE claims SET lease_expires_at = 0 {_OWN}"  # noqa: S608
_WITHDRAW: Final = f"DELETE FROM claims {_OWN}"  # noqa: S608
_FORGET_NAME: Final = tuple(
    f"DELETE FROM {index} WHERE transaction_id = ? AND key_alias = ?"  # noqa: S608
    for index in ("names", "new_names")
)
_LATEST: Final = "SELECT max(claimed_at, coalesce(completed_at, 0)) FROM claims ORDER BY number DESC LIMIT 1"
_OLDEST: Final = """
    SELECT number, transaction_id, key_alias, max(claimed_at, coalesce(completed_at, 0)) <= ?, digest
    FROM claims ORDER BY number LIMIT ?
"""


class Claims:
    """The claims of one opening of the file; the caller opens and commits the transactions."""

    def __init__(self, connection: sqlite3.Connection, opening: int) -> None:
        self._connection = connection
        self._opening = opening
        (last,) = connection.execute("SELECT max(number) FROM claims").fetchone()
        self._next_number = (last or 0) + 1
        # Numbers beyond the last claim are given anew.
        connection.execute("UPDATE digests_indexed SET until = min(until, ?)", (last or 0,))

    def bind(self, claim: Claim, token: str, now: float, lease_expires_at: float) -> bool:
        """Bind a transaction that nobody named before; False if somebody did."""
        number = self._next_number
        names = (claim.transaction_id, claim.key_alias)
        if not self._connection.execute(_BIND_NAME, (*names, number)).rowcount:
            return False
        self._next_number = number + 1
        row = (number, *names, claim.digest, claim.algorithm, token, self._opening, now, lease_expires_at)
        self._connection.execute(_BIND, (*row, claim.key_label, claim.caller))
        return True

    def find(self, claim: Claim) -> Record:
        """Give what is known of a transaction that is bound; leases of earlier openings have run out."""
        row = self._connection.execute(_FIND, (claim.transaction_id, claim.key_alias)).fetchone()
        # The file is held by one process at a time: what an earlier opening claimed, nobody works on.
        return _record(row, opening=self._opening)

    def take_over(self, record: Record, former_token: str) -> None:
        """Store the new holder of a claim."""
        holder = record.holder
        values = (holder.token, self._opening, holder.claimed_at, record.lease_expires_at, record.take_overs)
        self._change(_TAKE_OVER, (*values, holders_to_text(record.former)), record.claim, former_token)

    def complete(self, claimed: Claimed, signature: str, now: float) -> bool:
        """Keep a signature; False if the claim is lost, or has one."""
        return self._change(_COMPLETE, (signature, now), claimed.claim, claimed.token)

    def release(self, claimed: Claimed) -> None:
        """End the lease of a claim that is still held."""
        self._change(_RELEASE, (), claimed.claim, claimed.token)

    def withdraw(self, claimed: Claimed) -> None:
        """Unbind a transaction: with the token that bound it still there, nobody else ever worked on it."""
        if self._change(_WITHDRAW, (), claimed.claim, claimed.token):
            self._forget_names([(claimed.claim.transaction_id, claimed.claim.key_alias)])

    def latest(self) -> float | None:
        """Tell when something last happened to the newest transaction; None while there is none."""
        row = self._connection.execute(_LATEST).fetchone()
        return None if row is None else float(row[0])

    def count_new_names(self) -> int:
        """Tell how many names are not folded yet."""
        (count,) = self._connection.execute("SELECT count(*) FROM new_names").fetchone()
        return int(count)

    def fold(self, limit: int) -> int:
        """Move up to `limit` names, neighbours of one another, into the large index; tells how many there were.

        As many digests are indexed with them.
        """
        rows = self._connection.execute("SELECT * FROM new_names ORDER BY 1, 2 LIMIT ?", (limit,)).fetchall()
        self._connection.executemany("INSERT INTO names VALUES (?, ?, ?)", rows)
        self._connection.executemany(_FORGET_NAME[1], [row[:2] for row in rows])
        self._index_digests(limit)
        return len(rows)

    def _index_digests(self, limit: int) -> None:
        rows = self._connection.execute(_UNINDEXED, (limit,)).fetchall()
        if rows:
            self._connection.executemany("INSERT OR IGNORE INTO digests VALUES (?, ?)", rows)
            self._connection.execute("UPDATE digests_indexed SET until = ?", (rows[-1][1],))

    def forget(self, until: float, limit: int) -> int:
        """Forget those among the oldest `limit` transactions that nothing happened to since; tells how many."""
        rows = self._connection.execute(_OLDEST, (until, limit)).fetchall()
        forgotten = [row for row in rows if row[3]]
        self._connection.executemany("DELETE FROM claims WHERE number = ?", [row[:1] for row in forgotten])
        self._forget_names([row[1:3] for row in forgotten])
        digests = [(row[4], row[0]) for row in forgotten]
        self._connection.executemany("DELETE FROM digests WHERE digest = ? AND number = ?", digests)
        return len(forgotten)

    def _change(self, statement: str, values: tuple[object, ...], claim: Claim, token: str) -> bool:
        parameters = (*values, claim.transaction_id, claim.key_alias, token)
        return self._connection.execute(statement, parameters).rowcount == 1

    def _forget_names(self, names: Sequence[tuple[str, str]]) -> None:
        for statement in _FORGET_NAME:
            self._connection.executemany(statement, names)


def find_all(connection: sqlite3.Connection, transaction_id: str) -> list[Record]:
    """Give what is known of a transaction under every key, leases as they stand in the file."""
    return [_record(row) for row in connection.execute(_FIND_ALL, (transaction_id,))]


def find_digest(connection: sqlite3.Connection, digest: bytes, limit: int) -> list[Record]:
    """Give what is known of the newest transactions of a digest."""
    return [_record(row) for row in connection.execute(FIND_DIGEST, (digest, limit))]


def _record(row: Sequence[Any], opening: int | None = None) -> Record:
    """Read a row; raises `LedgerUnavailableError` for one that this service did not write."""
    transaction_id, key_alias, digest, algorithm, token, claimed_in, owner, claimed_at, lease_expires_at, *rest = row
    take_overs, former, signature, completed_at, key_label, caller = rest
    try:
        holders = holders_from_text(former)
        kept = Signature.from_message(json.loads(signature)) if signature is not None else None
    except (TypeError, ValueError, RecursionError):
        msg = "the ledger's file holds something under this transaction that is not a claim"
        raise LedgerUnavailableError(msg) from None
    return Record(
        Claim(key_alias, transaction_id, digest, algorithm, key_label, caller),
        Holder(token, owner, claimed_at),
        lease_expires_at if opening in (None, claimed_in) else 0.0,
        take_overs,
        holders,
        kept,
        completed_at,
    )
