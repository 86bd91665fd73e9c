"""The hash chain of audit records: how a record becomes a line, and what a line alone proves; pure.

A line is one compact JSON object in ASCII with these members, in this order:

`v` (1), `chain` (12 hex digits, drawn once for each directory), `seq` (1, 2, 3, ... without a gap), `audit_id`
(`<chain>-<seq in 16 digits>`), `prev` (the `hash` of the line before; 64 zeros in the first), then the fields of
`AuditEntry` that have a value, in the order of their declaration, and last `hash`.

`hash` is the SHA-256 (hex) of the line as it would be without that member, from `{` to `}`. To check a chain:

    prev = "0" * 64
    for line in open(segment, "rb"):
        content, hash = line[:-76] + b"}", line[-67:-3].decode()
        assert hashlib.sha256(content).hexdigest() == hash
        assert json.loads(content)["prev"] == prev
        prev = hash

and `seq` counts up by one; `signer audit verify` does that and says what is wrong where. Whoever can write the files
can also compute hashes: cutting off the tail or rewriting it is found only with an anchor, a `(seq, hash)` that was
noted elsewhere.
"""

import hashlib
import json
import re
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import Final

from signer.errors import AuditUnavailableError
from signer.ports import AuditEntry

MAX_LINE_BYTES: Final = 1 << 20
"""Readers refuse longer lines, so that memory stays bounded; `encode` does not let one come about."""
REPAIR_OPERATION: Final = "audit.repair"
SEGMENT_NAME: Final = re.compile(r"audit-([0-9]{16})\.jsonl")
"""Named after its first record; sorted by name, the segments hold the chain in order."""
TORN_NAME: Final = re.compile(r"torn-[0-9TZ.]+-([0-9]{16})\.bin")
"""Bytes a crash left behind a segment's last record, named after the record that tells of them."""

_FIELDS: Final = tuple(field.name for field in fields(AuditEntry))
_VALUES: Final = attrgetter(*_FIELDS)
_TO_JSON: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_LINK_BYTES: Final = 1024
_TAIL_BYTES: Final = len(b',"hash":""}\n') + 64
_TAIL: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n')
_START: Final = re.compile(
    rb'\{"v":1,"chain":"([0-9a-f]{12})","seq":([1-9][0-9]{0,15}),"audit_id":"([0-9a-f]{12}-[0-9]{16})",'
    rb'"prev":"([0-9a-f]{64})","time":"[^"]*","operation":"([^"]*)"'
)


class Fault(StrEnum):
    """What can be wrong with a line, alone or in its place."""

    BROKEN = "broken"
    """Not a record in the form above."""
    TORN = "torn"
    """The last line, and it ends early."""
    ALTERED = "altered"
    """Its hash is not that of its content, or not the one that was anchored."""
    MISSING = "missing"
    REORDERED = "reordered"
    DUPLICATE = "duplicate"
    FORKED = "forked"
    """It follows another line than the one before it: that one was replaced."""
    FOREIGN = "foreign"
    """It belongs to another chain."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain, on which the next one builds."""

    chain: str
    seq: int = 0
    hash: str = "0" * 64

    @property
    def audit_id(self) -> str:
        """Name the record."""
        return f"{self.chain}-{self.seq:016d}"


NO_RECORD: Final = Head(chain="")
"""Before any record is known."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a line says about its own place."""

    head: Head
    prev: str
    operation: str

    def follows(self, head: Head) -> bool:
        """Whether it is the next record after `head`."""
        return (self.head.chain, self.head.seq, self.prev) == (head.chain, head.seq + 1, head.hash)


def segment_name(seq: int) -> str:
    """Name the segment that begins with record `seq`."""
    return f"audit-{seq:016d}.jsonl"


def encode(entry: AuditEntry) -> str:
    """Give the members of an entry as they stand in its line; raises `AuditUnavailableError` beyond the line limit."""
    values = zip(_FIELDS, _VALUES(entry), strict=True)
    members = _TO_JSON({name: value for name, value in values if value is not None})[1:-1]
    if len(members) > MAX_LINE_BYTES - _LINK_BYTES:
        msg = f"an audit record larger than {MAX_LINE_BYTES} bytes cannot be kept"
        raise AuditUnavailableError(msg)
    return members


def link(head: Head, members: str) -> tuple[bytes, Head]:
    """Chain what `encode` gave after `head`: the line, and the head it becomes."""
    place = Head(head.chain, head.seq + 1)
    start = f'{{"v":1,"chain":"{place.chain}","seq":{place.seq},"audit_id":"{place.audit_id}","prev":"{head.hash}"'
    content = f"{start},{members}}}".encode("ascii")
    digest = hashlib.sha256(content).hexdigest()
    return content[:-1] + f',"hash":"{digest}"}}\n'.encode("ascii"), Head(place.chain, place.seq, digest)


def read(line: bytes) -> Record | Fault:
    """Read one line with its newline; its hash is checked, its place in the chain is not."""
    if not line.endswith(b"\n"):
        return Fault.BROKEN if len(line) > MAX_LINE_BYTES else Fault.TORN
    tail = _TAIL.fullmatch(line, max(0, len(line) - _TAIL_BYTES))
    if tail is None:
        return Fault.BROKEN
    digest = tail[1].decode("ascii")
    if hashlib.sha256(line[: tail.start()] + b"}").hexdigest() != digest:
        return Fault.ALTERED
    start = _START.match(line)
    if start is None:
        return Fault.BROKEN
    chain, seq, audit_id, prev, operation = (group.decode("ascii", "replace") for group in start.groups())
    head = Head(chain, int(seq), digest)
    return Record(head, prev, operation) if audit_id == head.audit_id else Fault.BROKEN


def is_canonical(line: bytes) -> bool:
    """Tell whether a line whose hash is right is also exactly what this module would write, byte by byte."""
    try:
        return _TO_JSON(json.loads(line)).encode("ascii") + b"\n" == line
    except (ValueError, RecursionError):
        return False
