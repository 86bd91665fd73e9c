"""Parsers of what the stores kept: the ledger's rows and items, the audit log's lines."""

import functools
import hashlib
import json
import shutil
import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from signer.audit import chain, verification
from signer.audit.latest import last_signature
from signer.audit.recovery import Recovery
from signer.errors import AuditBrokenError, LedgerUnavailableError
from signer.ledger import claims, schema
from signer.ledger.history import events_of
from signer.ledger.items import TTL, is_forgotten, record_of
from signer.ledger.record import Holder, Record, holders_to_text
from signer.ports import AuditEntry, Claim, Signature
from tests.fuzz.parser import Parser, directory, dumped, file_with

_SIGNATURE: Final = Signature(
    "RSASSA_PSS_SHA_256", "settlement", "key-1", "sha256:00", "AA==", "AA==", "2028-03-08T12:00:00.000000Z", "a-1"
)
_HOLDERS: Final = (Holder("token", "host/1", 1835524800.5), Holder("other", "host/2", 1835524801.5))
_NOW_S: Final = 1835524800.0


@functools.cache
def _ledger() -> sqlite3.Connection:
    """Give a ledger in memory with one transaction in it."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    schema.bring_up(connection)
    connection.execute("INSERT INTO openings VALUES (1, ?, 'host/1')", (_NOW_S,))
    claim = Claim("settlement", "TXN-1", hashlib.sha256(b"x").digest(), "RSASSA_PSS_SHA_256", "key-1", "http:loopback")
    claims.Claims(connection, 1).bind(claim, "token", _NOW_S, _NOW_S + 60)
    return connection


def _row(column: str, data: bytes) -> list[Record]:
    """Read the transaction with another text in one column."""
    connection = _ledger()
    text = data.decode("utf-8", "replace")
    connection.execute("UPDATE claims SET former = NULL, signature = NULL")
    connection.execute(f"UPDATE claims SET {column} = ?", (text,))  # noqa: S608 - one of the two below
    return claims.find_all(connection, "TXN-1")


def _item(data: bytes) -> list[Any]:
    """Read an item of the table, typed as DynamoDB types whatever somebody put there."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = {}
    item = {str(name): _typed(value) for name, value in found.items()} if isinstance(found, dict) else {}
    record = record_of(item)
    return [is_forgotten(item, _NOW_S), events_of(record)]


def _typed(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"L": [_typed(member) for member in value]}
    kind, inner = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("S", value)
    if kind == "M" and isinstance(inner, dict):
        return {"M": {str(name): _typed(member) for name, member in inner.items()}}
    if kind == "B":
        return {"B": str(inner).encode("utf-8", "replace")}
    return {"N" if kind == "N" else "S": str(inner)}


_ITEM: Final = {
    "transaction_id": {"S": "TXN-1"},
    "key_alias": {"S": "settlement"},
    TTL: {"N": "1900000000"},
    "digest": {"B": "x" * 32},
    "algorithm": {"S": "RSASSA_PSS_SHA_256"},
    "key_label": {"S": "key-1"},
    "caller": {"S": "http:loopback"},
    "holder_token": {"S": "token"},
    "holder": {"S": "host/1"},
    "claimed_at": {"N": "1835524800.500"},
    "lease_expires_at": {"N": "1835524860.500"},
    "take_overs": {"N": "1"},
    "former_holders": {"S": holders_to_text(_HOLDERS)},
    "signature": {"M": {name: {"S": value} for name, value in _SIGNATURE.to_message().items()}},
    "completed_at": {"N": "1835524801.500"},
}


def _chained(*entries: AuditEntry) -> bytes:
    head, lines = chain.Head("0123456789ab"), []
    for entry in entries:
        line, head = chain.link(head, chain.encode(entry))
        lines.append(line)
    return b"".join(lines)


_ENTRIES: Final = (
    AuditEntry("2028-03-08T12:00:00.123456Z", "service.start", "done", detail="new: audit log and ledger"),
    AuditEntry(
        "2028-03-08T12:00:01.123456Z",
        "sign",
        "signed",
        transaction_id="TXN-1",
        key_alias="settlement",
        algorithm="RSASSA_PSS_SHA_256",
        digest="sha256:" + "0" * 64,
        duration_s=0.5,
    ),
    AuditEntry("2028-03-08T12:00:02.123456Z", "probe", "signed", key_handle=7),
    AuditEntry("2028-03-08T12:00:03.123456Z", chain.REPAIR_OPERATION, "done"),
)


def _line(data: bytes) -> object:
    return chain.read(data), chain.is_canonical(data)


def _segment(data: bytes) -> Path:
    """Put a directory of one segment in the place of the one before."""
    where = directory() / "audit"
    shutil.rmtree(where, ignore_errors=True)
    return file_with(data, f"audit/{chain.segment_name(1)}").parent


def _recovered(data: bytes) -> object:
    found = Recovery(_segment(data), lambda: datetime(2028, 3, 8, tzinfo=UTC), lambda _descriptor: None).find_end()
    assert verification.verify_directory(directory() / "audit").records == found.head.seq
    return found


PARSERS: Final[dict[str, Parser]] = {
    "ledger's item": Parser(_item, (dumped(_ITEM),), (LedgerUnavailableError,)),
    "ledger's holders": Parser(
        lambda data: _row("former", data), (dumped([asdict(holder) for holder in _HOLDERS]),), (LedgerUnavailableError,)
    ),
    "ledger's signature": Parser(
        lambda data: _row("signature", data), (dumped(_SIGNATURE.to_message()),), (LedgerUnavailableError,)
    ),
    "audit line": Parser(_line, (_chained(_ENTRIES[1]), _chained(_ENTRIES[0]))),
    "audit log, verified": Parser(lambda data: verification.verify_directory(_segment(data)), (_chained(*_ENTRIES),)),
    "audit log, taken up": Parser(_recovered, (_chained(*_ENTRIES),), (AuditBrokenError,)),
    "audit log's last signature": Parser(
        lambda data: last_signature(_segment(data)), (_chained(*_ENTRIES), _chained(_ENTRIES[0])), (AuditBrokenError,)
    ),
}
