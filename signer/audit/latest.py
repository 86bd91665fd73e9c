"""The last signature that an audit log tells of: the ledger beside it must know that one."""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from signer.audit.chain import SEGMENT_NAME, Record, read
from signer.errors import AuditBrokenError

# Not within a string, where its quotes are escaped. Beside `sign` there are `service.start` and `store.begin`.
_OPERATION: Final = b'"operation":"s'
_NEW_LEDGER: Final = ("new: ledger", "new: audit log and ledger", "ledger.accept_new is set")


def last_signature(directory: Path) -> dict[str, Any] | None:
    """Give the record of the last one that the ledger in use was asked for; None if there is none.

    What was signed before a new ledger was accepted on purpose, that one need not know. Raises `AuditBrokenError`.
    """
    for record in _records(directory):
        if record["operation"] == "sign" and record["outcome"] == "signed":
            return record
        if any(words in record.get("detail", "") for words in _NEW_LEDGER):
            return None
    return None


def _records(directory: Path) -> Iterator[dict[str, Any]]:
    """Give those of such operations, the last one first; the many probes between them are passed over unread."""
    segments = sorted(file for file in directory.iterdir() if SEGMENT_NAME.fullmatch(file.name))
    for segment in reversed(segments):
        # Nothing cannot be mapped.
        if segment.stat().st_size:
            with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                place = content.rfind(_OPERATION)
                while place >= 0:
                    start = content.rfind(b"\n", 0, place) + 1
                    line = content[start : content.find(b"\n", place) + 1]
                    if not isinstance(read(line), Record):
                        msg = f"the audit log is broken in {segment.name}, byte {start}: see `signer audit verify`"
                        raise AuditBrokenError(msg)
                    yield json.loads(line)
                    place = content.rfind(_OPERATION, 0, start)
