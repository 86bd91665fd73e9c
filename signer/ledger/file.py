"""The ledger's SQLite file: opened so that a commit is durable, and watched so that it is the one others will find."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from signer.errors import ConfigurationError, LedgerUnavailableError
from signer.private_files import lock_exclusively

_Identity = list[tuple[int, int]]

_PRAGMAS: Final = (
    "synchronous = FULL",
    # Pages: a commit copies none into the database, `tidying` does; this is for when it cannot keep up.
    "wal_autocheckpoint = 16384",
    # KiB: the inner pages of an index over a million names. 64 MiB were no faster, and filled like a leak for hours.
    "cache_size = -4096",
)


class Place:
    """Whether the names of the database at `path`, and of its write-ahead log, lead to the files opened at first."""

    def __init__(self, path: Path) -> None:
        self._files = (path, path.with_name(path.name + "-wal"))
        self._identity = self._find()
        self._lost = False

    def require(self) -> None:
        """Raise `LedgerUnavailableError` if not, and from then on for ever."""
        self._lost = self._lost or self._find() != self._identity
        if self._lost:
            msg = "the ledger's file is gone or was replaced: put it back and start again"
            raise LedgerUnavailableError(msg)

    def _find(self) -> _Identity:
        found: _Identity = []
        for file in self._files:
            try:
                status = file.stat()
            except (FileNotFoundError, NotADirectoryError):
                found.append((0, 0))
            else:
                found.append((status.st_dev, status.st_ino))
        return found


def refuse_new(path: Path) -> ConfigurationError:
    """Say why no ledger is made at `path`."""
    return ConfigurationError(
        f"the ledger {path} is gone or empty, while the audit log has records: put it back, or transactions could be "
        "signed a second time over other content. If it is lost for good: ledger.accept_new = true"
    )


def hold(path: Path, *, may_be_new: bool) -> int:
    """Give a descriptor that keeps every other process out of the file (0600), by whatever name, until it is closed.

    Closed before the last connection to the file, it would take SQLite's own locks along (fcntl(2)).
    """
    # Not left to SQLite: beside an empty file it deletes the write-ahead log, which a person may want.
    if not may_be_new and not (path.exists() and path.stat().st_size):
        raise refuse_new(path)
    return lock_exclusively(path, f"the ledger {path}")


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open the file, so that a commit returns only after its fsync (WAL, synchronous=FULL)."""
    # Opened here, used by the writer thread only; isolation_level=None: no transaction but our own.
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    if mode != "wal":
        connection.close()
        msg = f"the ledger's disk does not support a write-ahead log (journal mode {mode}): use a local disk"
        raise ConfigurationError(msg)
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the block as a whole, or leave nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors (disk full, I/O) SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """Let the errors of SQLite and of the disk come out as ours."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        if name == "SQLITE_NOTADB":
            msg = f"the ledger {path} is not a database"
            raise ConfigurationError(msg) from error
        msg = f"the ledger cannot be written: {name}"
        raise LedgerUnavailableError(msg) from error
    except OSError as error:
        msg = f"the ledger cannot be opened: {error.strerror}"
        raise LedgerUnavailableError(msg) from error
