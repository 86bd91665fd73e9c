"""What is known when all is over: sent, out, in quarantine, in the ledger, in the audit logs. Imports nothing of ours.

It lies in one directory, as JSON lines, so that it can be checked again by whoever doubts it.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

Expect = Literal["out", "quarantine", "either"]
"""What must become of a batch; of two that cannot both be signed, either."""
Line = TypeVar("Line")

_SEGMENTS: Final = "audit-*.jsonl"


@dataclass(frozen=True, slots=True)
class Sent:
    """One batch as it was put into the inbound queue; sent twice it stands here twice."""

    batch_id: str
    kind: str
    expect: Expect
    code: str
    """The reason it must be set aside for; empty if it must not."""
    pair: str
    """Names it and the other batch that it cannot be signed beside; empty if there is none."""
    group: str
    """Of a FIFO queue."""
    body: str


@dataclass(frozen=True, slots=True)
class Copy:
    """One message that came out of the outbound queue; what lay in S3 is its body."""

    body: str
    attributes: Mapping[str, str]
    sent_at_ms: int
    """When the queue took it."""
    group: str = ""
    sequence: str = ""
    """Its place in a FIFO queue."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """One message of the quarantine queue."""

    body: str
    reasons: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One transaction in the ledger."""

    key_alias: str
    transaction_id: str
    digest: str
    """Hex."""
    signature: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it."""

    public_key_pem: bytes
    sent: list[Sent]
    out: list[Copy]
    set_aside: list[SetAside]
    ledger: list[Row]
    audit: Mapping[str, list[bytes]]
    """The lines of each process's audit log, by its name."""
    left: Mapping[str, int] = field(default_factory=dict)
    """Messages that are still in a queue which should be empty, by its name."""
    fifo: bool = False


class Journal:
    """A file to which lines are added, from any thread; each is there once `add` has returned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.touch()

    def add(self, line: Any) -> None:
        """Write one dataclass."""
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")


def read_journal(path: Path, kind: type[Line]) -> list[Line]:
    """Read back what was added."""
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def read_audit(directory: Path) -> list[bytes]:
    """Give the lines of an audit log in the order of its segments, each with its newline if it has one."""
    return [line for file in sorted(directory.glob(_SEGMENTS)) for line in _lines(file.read_bytes())]


def _lines(content: bytes) -> Iterator[bytes]:
    return iter(content.splitlines(keepends=True))
