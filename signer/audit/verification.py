"""Verifies an audit chain, offline and in bounded memory, and names the first line that is not as it should be."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from signer.audit.chain import (
    MAX_LINE_BYTES,
    NO_RECORD,
    REPAIR_OPERATION,
    SEGMENT_NAME,
    TORN_NAME,
    Fault,
    Record,
    is_canonical,
    read,
)
from signer.errors import InvalidInputError

_EXPECTED_NAMES: Final = frozenset({".lock", ".torn"})
_FAULTS_OF_A_LINE: Final = {
    Fault.BROKEN: "this line is not an audit record",
    Fault.ALTERED: "this line was changed: its hash is not that of its content",
    Fault.TORN: "the last line ends early: a crash, or a write under way; the next start sets it aside and says so",
}
_NO_ANCHORS: Final[Mapping[int, str]] = MappingProxyType({})


class Line(NamedTuple):
    """One line of a segment, with its newline."""

    file: str
    number: int
    """From 1."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """The first line that is not as it should be."""

    kind: Fault
    file: str
    line: int
    """From 1; the line after the last one where the end is missing."""
    seq: int
    """The record that should stand there."""
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a chain proves, up to its first problem."""

    problem: Problem | None
    chain: str
    """Its id; empty where there is not one sound record."""
    records: int
    """Sound records, and so the `seq` of the last of them."""
    head_hash: str
    """Of that last record. Noted elsewhere, the two are an anchor: they prove later that nothing was cut off."""
    repairs: tuple[int, ...]
    """The records that tell of torn bytes, left by a crash and moved aside."""
    segments: int = 0
    notes: tuple[str, ...] = ()
    """What else is odd in the directory; the chain does not depend on it."""

    @property
    def ok(self) -> bool:
        """Whether the chain is whole."""
        return self.problem is None


def verify_directory(directory: Path, anchors: Mapping[int, str] = _NO_ANCHORS) -> Verification:
    """Verify the chain that lies in `directory`; raises `InvalidInputError` if it cannot be read."""
    try:
        names = sorted(file.name for file in directory.iterdir())
        segments = [name for name in names if SEGMENT_NAME.fullmatch(name)]
        result = verify(_lines(directory, segments), anchors)
    except OSError as error:
        msg = f"the audit log {directory} cannot be read: {error.strerror}"
        raise InvalidInputError(msg) from None
    return replace(result, segments=len(segments), notes=tuple(_notes(names, result)))


def verify(lines: Iterable[Line], anchors: Mapping[int, str] = _NO_ANCHORS) -> Verification:
    """Follow the chain from its first record to its first problem, or to its end.

    `anchors` are hashes of records by `seq`, noted earlier somewhere else: each must be in the chain.
    """
    walk = _Walk(anchors)
    remaining = iter(lines)
    problem = next(filter(None, map(walk.step, remaining)), None)
    if problem is None:
        problem = walk.end()
    elif problem.kind is Fault.MISSING:
        problem = _found_later(problem, remaining) or problem
    elif problem.kind is Fault.TORN and next(remaining, None) is not None:
        problem = replace(problem, kind=Fault.BROKEN, message="this line does not end, and others follow it")
    return Verification(problem, walk.head.chain, walk.head.seq, walk.head.hash, tuple(walk.repairs))


class _Walk:
    """Goes through a chain line by line and keeps no more than its last record."""

    def __init__(self, anchors: Mapping[int, str]) -> None:
        self.head = NO_RECORD
        self.repairs: list[int] = []
        self._anchors = anchors
        self._last = Line("", 0, b"")

    def step(self, line: Line) -> Problem | None:
        """Take the next line, or say what is wrong with it."""
        record = read(line.data)
        if isinstance(record, Record) and not is_canonical(line.data):
            record = Fault.BROKEN
        if isinstance(record, Fault):
            return self._problem(record, line, _FAULTS_OF_A_LINE[record])
        misplaced = self._misplaced(record)
        if misplaced is not None:
            return self._problem(misplaced[0], line, misplaced[1])
        if record.operation == REPAIR_OPERATION:
            self.repairs.append(record.head.seq)
        self.head, self._last = record.head, line
        return None

    def end(self) -> Problem | None:
        """Say whether something is missing behind the last line."""
        last = max(self._anchors, default=1)
        if self.head.seq >= last:
            return None
        after = self._last._replace(number=self._last.number + 1)
        return self._problem(Fault.MISSING, after, f"the chain ends here, before record {last}: its tail was cut off")

    def _misplaced(self, record: Record) -> tuple[Fault, str] | None:
        before, found = self.head, record.head
        expected = before.seq + 1
        if before is not NO_RECORD and found.chain != before.chain:
            return Fault.FOREIGN, f"record {found.seq} of another chain ({found.chain}) stands here"
        if found.seq > expected:
            gone = (
                f"record {expected} is" if found.seq == expected + 1 else f"records {expected} to {found.seq - 1} are"
            )
            return Fault.MISSING, f"{gone} missing: record {found.seq} stands here"
        if found.seq < expected:
            return Fault.DUPLICATE, f"record {found.seq} stands here once more, where record {expected} should"
        if record.prev != before.hash:
            return Fault.FORKED, f"record {found.seq} was not chained to the line before it: that line was replaced"
        if self._anchors.get(found.seq, found.hash) != found.hash:
            return Fault.ALTERED, f"record {found.seq} is not the one that was anchored: the chain was rewritten"
        return None

    def _problem(self, kind: Fault, line: Line, message: str) -> Problem:
        return Problem(kind, line.file, line.number, self.head.seq + 1, message)


def _found_later(missing: Problem, remaining: Iterable[Line]) -> Problem | None:
    """Tell a record that was moved from one that is gone."""
    for line in remaining:
        record = read(line.data)
        if isinstance(record, Record) and record.head.seq == missing.seq:
            message = f"record {missing.seq} does not stand here but at {line.file}:{line.number}"
            return replace(missing, kind=Fault.REORDERED, message=message)
    return None


def _lines(directory: Path, segments: Sequence[str]) -> Iterator[Line]:
    for name in segments:
        with (directory / name).open("rb") as file:
            for number, data in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
                yield Line(name, number, data)


def _notes(names: Sequence[str], result: Verification) -> Iterator[str]:
    told_of = set(result.repairs)
    copies = {name: int(match[1]) for name in names if (match := TORN_NAME.fullmatch(name))}
    for name in names:
        if name not in copies and name not in _EXPECTED_NAMES and not SEGMENT_NAME.fullmatch(name):
            yield f"{name} is no part of an audit log"
    if result.ok:
        yield from (
            f"{name} holds torn bytes that no record tells of" for name in copies if copies[name] not in told_of
        )
        for seq in sorted(told_of - set(copies.values())):
            yield f"the torn bytes that record {seq} tells of are gone"
