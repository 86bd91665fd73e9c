"""What a ledger knows of one transaction, read beside whatever service is at work on it; changes nothing."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from signer.errors import ConfigurationError
from signer.ledger import claims, schema, table
from signer.ledger.file import faults_named
from signer.ledger.record import Record
from signer.settings import LedgerSettings
from signer.work import timestamp


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a transaction."""

    at: str
    """RFC 3339, UTC, microseconds."""
    event: str
    """`bound`, `taken over`, `completed`."""
    by: str
    """The process: host and process number."""


def find(settings: LedgerSettings, transaction_id: str) -> list[Record]:
    """Give its records, one for each key alias; raises `ConfigurationError`, `LedgerUnavailableError`."""
    if settings.table is not None:
        with closing(table.make_client(settings)) as client:
            return table.find_all(client, settings.table, transaction_id, time.time())
    if settings.path is None:  # pragma: no cover - the settings exclude it
        raise AssertionError
    with reading(settings.path) as connection:
        return claims.find_all(connection, transaction_id)


def events_of(record: Record) -> list[Event]:
    """Give what happened, oldest first; of many take-overs only the latest few are remembered."""
    holders = (*record.former, record.holder)
    events = [
        Event(rfc_3339(holder.claimed_at), "taken over" if number else "bound", holder.owner)
        for number, holder in enumerate(holders)
    ]
    if record.completed_at is not None:
        events.append(Event(rfc_3339(record.completed_at), "completed", record.holder.owner))
    return events


def state_of(record: Record, now: float) -> str:
    """Say how it stands: `signed`, `in progress`, or `open` to be taken over with the same content."""
    if record.signature is not None:
        return "signed"
    return "in progress" if now < record.lease_expires_at else "open"


def rfc_3339(at_s: float) -> str:
    """Give a Unix time as people read it."""
    return timestamp(datetime.fromtimestamp(at_s, UTC))


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Read a ledger's file beside the process that writes it."""
    if not path.is_file():
        msg = f"there is no ledger {path}"
        raise ConfigurationError(msg)
    # Not `mode=ro`: a reader that finds no shared memory beside a write-ahead log may have to make it.
    where = f"{path.absolute().as_uri()}?mode=rw"
    with faults_named(path), closing(sqlite3.connect(where, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA query_only = ON")
        version = schema.version_of(connection)
        if version != schema.VERSION:
            raise schema.unknown(version)
        yield connection
