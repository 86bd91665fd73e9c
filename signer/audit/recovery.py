"""Finds the end of an audit chain on disk, and moves aside what a crash left behind it."""

import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from signer.audit.chain import MAX_LINE_BYTES, NO_RECORD, SEGMENT_NAME, TORN_NAME, Head, Record, read, segment_name
from signer.errors import AuditBrokenError
from signer.private_files import sync_directory, write_all

_UNFINISHED_COPY: Final = ".torn"


@dataclass(frozen=True, slots=True)
class End:
    """A point in a segment up to which it is sound, and the last record before that point."""

    segment: Path
    size: int = 0
    head: Head = NO_RECORD


class Recovery:
    """What has to be done to `directory` before a record may be chained on.

    It may be cut short anywhere and begun again: torn bytes stay where they are until their copy is durable.
    """

    def __init__(self, directory: Path, wall_clock: Callable[[], datetime], fsync: Callable[[int], None]) -> None:
        self._directory = directory
        self._wall_clock = wall_clock
        self._fsync = fsync

    def find_end(self) -> End:
        """Find the last record of a chain another process wrote; torn bytes behind it are moved aside.

        Raises `AuditBrokenError` if the last segment contradicts itself, and `OSError`.
        """
        tails: list[tuple[End, bytes]] = []
        for segment in reversed(self._files(SEGMENT_NAME)):
            tails.append(_scan(End(segment)))
            if tails[-1][0].head is not NO_RECORD:
                break
        end = tails[-1][0] if tails else End(self._directory / segment_name(1))
        if end.head is NO_RECORD:
            end = replace(end, head=Head(secrets.token_hex(6)))
        for tail, torn in tails:
            self._settle(tail, torn, end.head.seq + 1)
        return end

    def find_end_after(self, last: End) -> End:
        """Find it after a commit of our own that failed behind `last`; raises as `find_end` does.

        Raises `AuditBrokenError` also if the record that `last` ends with does not stand there any more.
        """
        if last.head.seq and self._head_at(last) != last.head:
            msg = (
                f"acknowledged records of the audit log are gone: record {last.head.seq} does not stand where it was "
                f"written, before byte {last.size} of {last.segment.name}. Put the file back"
            )
            raise AuditBrokenError(msg)
        if not last.segment.exists():
            return last
        end, torn = _scan(last)
        self._settle(end, torn, end.head.seq + 1)
        if end.size > last.size:
            self._write_again(end, last.size)
        return end

    def copies(self, seq: int) -> list[Path]:
        """Give the files of torn bytes that record `seq` has to tell of."""
        return [file for file in self._files(TORN_NAME) if file.stem.endswith(f"-{seq:016d}")]

    def _head_at(self, end: End) -> Head | None:
        """Read the record that stands just before `end`: the last one of the segment before, if `end` begins one."""
        try:
            segment, size = end.segment, end.size
            if not size:
                before = [file for file in self._files(SEGMENT_NAME) if file.name < end.segment.name]
                segment = before[-1] if before else end.segment
                size = segment.stat().st_size
            with segment.open("rb") as file:
                file.seek(max(0, size - MAX_LINE_BYTES))
                content = file.read(min(size, MAX_LINE_BYTES))
                if file.tell() != size:
                    return None
        except FileNotFoundError:
            return None
        record = read(content[content.rfind(b"\n", 0, -1) + 1 :])
        return record.head if isinstance(record, Record) else None

    def _settle(self, end: End, torn: bytes, seq: int) -> None:
        """Cut torn bytes off once their copy is durable, and make sure that the sound bytes and the file's name are."""
        if torn:
            self._set_aside(torn, seq)
        with end.segment.open("r+b") as file:
            file.truncate(end.size)
            self._fsync(file.fileno())
        sync_directory(self._directory, self._fsync)

    def _set_aside(self, torn: bytes, seq: int) -> None:
        if any(file.read_bytes() == torn for file in self.copies(seq)):
            return
        unfinished = self._directory / _UNFINISHED_COPY
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            write_all(descriptor, torn)
            self._fsync(descriptor)
        finally:
            os.close(descriptor)
        moment = self._wall_clock().strftime("%Y%m%dT%H%M%S.%fZ")
        unfinished.rename(self._directory / f"torn-{moment}-{seq:016d}.bin")
        sync_directory(self._directory, self._fsync)

    def _write_again(self, end: End, durable_bytes: int) -> None:
        """Write again what a failed commit left sound but never acknowledged.

        After a failed fsync the kernel may take pages for clean that never reached the disk; the next fsync would pass
        over them, and acknowledged records would build on lines that a power failure takes away.
        """
        with end.segment.open("r+b", buffering=0) as file:
            file.seek(durable_bytes)
            content = file.read(end.size - durable_bytes)
            file.seek(durable_bytes)
            write_all(file.fileno(), content)
            self._fsync(file.fileno())

    def _files(self, name: re.Pattern[str]) -> list[Path]:
        return sorted(file for file in self._directory.iterdir() if name.fullmatch(file.name))


def _scan(start: End) -> tuple[End, bytes]:
    """Read on from `start`: where the sound records end, and the torn bytes behind them; raises `AuditBrokenError`."""
    size, head = start.size, start.head
    with start.segment.open("rb") as file:
        file.seek(size)
        while isinstance(record := read(line := file.readline(MAX_LINE_BYTES + 1)), Record):
            if head is not NO_RECORD and not record.follows(head):
                break
            size, head = size + len(line), record.head
        file.seek(size)
        rest = file.read()
    if rest and not _is_torn(rest):
        msg = (
            f"the audit chain is broken in {start.segment.name}, {size} bytes from its start: "
            "it was not a crash. See `signer audit verify`"
        )
        raise AuditBrokenError(msg)
    return End(start.segment, size, head), rest


def _is_torn(rest: bytes) -> bool:
    """Tell a write that a crash cut short from a change: it ends early or has holes, and no record stands behind it."""
    first, newline, others = rest.partition(b"\n")
    records = (read(line + b"\n") for line in others.split(b"\n"))
    return (not newline or b"\0" in first) and not any(isinstance(record, Record) for record in records)
