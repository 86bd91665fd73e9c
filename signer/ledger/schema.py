"""The tables of the embedded ledger, and how a file of an earlier version is brought up to this one."""

import sqlite3
from typing import Final

from signer.errors import ConfigurationError

VERSION: Final = 4

# Claims lie in the order in which they were bound: rows are written at the end of the file, and forgotten at its
# beginning. Ids come in no order at all, and each new one changes a page somewhere in its index: so the newest names
# stand in a small index of their own, from which they are folded into the large one behind the commits.
# No AUTOINCREMENT, and no index that SQLite keeps by itself: a name leads to its row, and stands in exactly one index.
_CLAIMS: Final = (
    """
    CREATE TABLE claims (
        number INTEGER PRIMARY KEY,
        transaction_id TEXT NOT NULL,
        key_alias TEXT NOT NULL,
        digest BLOB NOT NULL,
        algorithm TEXT NOT NULL,
        token TEXT NOT NULL,
        opening INTEGER NOT NULL,
        claimed_at REAL NOT NULL,
        lease_expires_at REAL NOT NULL,
        take_overs INTEGER NOT NULL DEFAULT 0,
        former TEXT,
        signature TEXT,
        completed_at REAL,
        key_label TEXT,
        caller TEXT
    ) STRICT
    """,
    *(
        f"""
        CREATE TABLE {index} (
            transaction_id TEXT NOT NULL,
            key_alias TEXT NOT NULL,
            number INTEGER NOT NULL,
            PRIMARY KEY (transaction_id, key_alias)
        ) STRICT, WITHOUT ROWID
        """
        for index in ("names", "new_names")
    ),
    "CREATE VIEW all_names AS SELECT * FROM new_names UNION ALL SELECT * FROM names",
)
# Digests come in no order either. Nobody who signs looks for one, so no commit indexes any: that is done behind the
# commits, up to the claim of the number `until`; who looks for one reads the few claims beyond it.
_DIGESTS: Final = (
    """
    CREATE TABLE digests (
        digest BLOB NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (digest, number)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE TABLE digests_indexed (until INTEGER NOT NULL) STRICT",
    "INSERT INTO digests SELECT digest, number FROM claims ORDER BY digest, number",
    "INSERT INTO digests_indexed SELECT coalesce(max(number), 0) FROM claims",
)
_CREATE: Final = (
    "CREATE TABLE openings (number INTEGER PRIMARY KEY, opened_at REAL NOT NULL, owner TEXT NOT NULL) STRICT",
    *_CLAIMS,
    *_DIGESTS,
)
# Version 1 had one index, kept by SQLite, and no history: who held a claim before, it cannot say.
_FROM_1: Final = (
    "ALTER TABLE openings ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE claims RENAME TO claims_1",
    *_CLAIMS,
    """
    INSERT INTO claims (transaction_id, key_alias, digest, algorithm, token, opening, claimed_at, lease_expires_at,
        signature, completed_at)
    SELECT transaction_id, key_alias, digest, algorithm, token, opening, claimed_at, lease_expires_at,
        signature, completed_at
    FROM claims_1 ORDER BY rowid
    """,
    "INSERT INTO names SELECT transaction_id, key_alias, number FROM claims ORDER BY transaction_id, key_alias",
    "DROP TABLE claims_1",
    *_DIGESTS,
)
# Version 3 did not keep who asked, and could not be asked by digest.
_FROM_3: Final = ("ALTER TABLE claims ADD COLUMN caller TEXT", *_DIGESTS)
# Version 2 did not keep which version of a key a claim was made with.
_FROM_2: Final = ("ALTER TABLE claims ADD COLUMN key_label TEXT", *_FROM_3)
_STEPS: Final = {0: _CREATE, 1: _FROM_1, 2: _FROM_2, 3: _FROM_3}


def version_of(connection: sqlite3.Connection) -> int:
    """Tell the version of the file's tables; 0: it has none."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def bring_up(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring them up to this version, as part of the caller's transaction.

    Raises `ConfigurationError` for a version this one does not know.
    """
    version = version_of(connection)
    if version == VERSION:
        return
    if version not in _STEPS:
        raise unknown(version)
    for statement in _STEPS[version]:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def unknown(version: int) -> ConfigurationError:
    """Say that the file is not one of ours, or of another version."""
    return ConfigurationError(f"the ledger has schema {version}, this version of the signer knows {VERSION}")
