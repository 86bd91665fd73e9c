"""The audit logs, read and followed as docs/audit.md tells anybody to."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from tests.chaos.evidence import Evidence

_NOTHING: Final = "0" * 64
_HASH: Final = b',"hash":"'


def broken_chain(lines: Iterable[bytes]) -> str | None:
    """Say what is wrong with the chain; None while it is whole."""
    previous, chain = _NOTHING, None
    for seq, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            content = line[: line.rindex(_HASH)] + b"}"
            chain = chain or record["chain"]
            place = (record["chain"], record["seq"], record["audit_id"], record["prev"])
            written = record["hash"]
        except (ValueError, KeyError, TypeError):
            return f"line {seq} is no record"
        if not line.endswith(b"\n"):
            return f"line {seq} does not end"
        if place != (chain, seq, f"{chain}-{seq:016d}", previous):
            return f"line {seq} is out of its place"
        if written != hashlib.sha256(content).hexdigest():
            return f"line {seq} was changed"
        previous = written
    return None if previous != _NOTHING else "there is no record"


def signed_records(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Give the records of every signature that was made or released again, of all processes."""
    for lines in evidence.audit.values():
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                # It breaks the chain, and is told of there.
                continue
            if record.get("operation") == "sign" and "signature_sha256" in record:
                yield record
