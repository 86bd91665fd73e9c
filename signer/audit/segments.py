"""A directory of audit segments and its one writer: finds the end of the chain, tells of repairs, appends."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from signer import failpoints
from signer.audit.chain import REPAIR_OPERATION, encode, link, segment_name
from signer.audit.recovery import End, Recovery
from signer.errors import AuditBrokenError, AuditUnavailableError
from signer.logs import Logger
from signer.ports import AuditEntry
from signer.private_files import lock_exclusively, make_private_directory, sync_directory, write_all
from signer.work import timestamp

_LOSS_NOTE: Final = "RECORDS-LOST.txt"


class ChainDirectory:
    """The chain in `directory`, which this process alone may write; one thread at a time.

    A segment that reached `segment_bytes` is followed by a new one. Torn bytes at the end, left by a crash, were never
    acknowledged: they are moved into a file of their own, and the next record tells of it.

    Once records that were acknowledged are gone, nothing is appended any more, by this process or by the next: a person
    has to put the file back, and then remove the note that lies in the directory.
    """

    def __init__(
        self,
        directory: Path,
        segment_bytes: int,
        logger: Logger,
        wall_clock: Callable[[], datetime],
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._logger = logger
        self._wall_clock = wall_clock
        # fdatasync would save nothing: the size of the file changes with every commit.
        self._fsync = fsync
        self._recovery = Recovery(directory, wall_clock, fsync)
        self._lock: int | None = None
        self._segment: int | None = None
        self._end: End | None = None
        """Where the last commit that succeeded ended. What stands behind it is unknown while no segment is open."""
        self._is_new = False
        self._broken: AuditBrokenError | None = None

    @property
    def is_new(self) -> bool:
        """Whether there was no record when the chain was opened."""
        return self._is_new

    def open(self) -> None:
        """Take the directory and find the end of the chain.

        Raises `AlreadyRunningError`, `AuditBrokenError` if the last segment contradicts itself,
        `AuditUnavailableError`.
        """
        try:
            make_private_directory(self._directory)
            self._lock = lock_exclusively(self._directory / ".lock", f"the audit log {self._directory}")
            self._refuse_after_loss()
            self._end = self._recovery.find_end()
            # A new chain is left without a record: who opened it may not want it to be new.
            self._is_new = self._end.head.seq == 0
            if not self._is_new:
                self._tell_of_repairs(self._end)
        except OSError as error:
            self.close()
            msg = f"the audit log {self._directory} cannot be opened: {error.strerror}"
            raise AuditUnavailableError(msg) from error
        except AuditBrokenError:
            self.close()
            raise

    def append(self, entries: Sequence[str]) -> list[str]:
        """Chain encoded entries in one write and one fsync, and give their audit ids.

        Raises `AuditUnavailableError`; what the segment holds is unknown then, and the next call finds out first: if
        something that was acknowledged is not there any more, this and all further calls raise `AuditBrokenError`.
        """
        if self._broken is not None:
            raise AuditBrokenError(self._broken.message)
        if self._end is None:
            msg = "the audit log is not open"
            raise AuditUnavailableError(msg)
        try:
            return self._write(self._recover(self._end) if self._segment is None else self._end, entries)
        except BaseException as error:
            self._close_segment()
            if isinstance(error, AuditBrokenError):
                self._give_up(error)
            if not isinstance(error, OSError):
                raise
            msg = f"the audit log cannot be written: {error.strerror}"
            raise AuditUnavailableError(msg) from error

    def close(self) -> None:
        """Let go of the directory."""
        self._close_segment()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _recover(self, last: End) -> End:
        """Find the end of the chain after a failure of our own."""
        self._end = self._recovery.find_end_after(last)
        return self._tell_of_repairs(self._end)

    def _tell_of_repairs(self, end: End) -> End:
        """Tell of the torn bytes that were moved aside; gives the end of the chain after that.

        A copy of torn bytes bears the number of the record that tells of it. As long as that is the next record, it was
        not written: so a crash in here is made good by the next opening.
        """
        seq = end.head.seq + 1
        copies = [(file.name, file.read_bytes()) for file in self._recovery.copies(seq)]
        if not copies:
            return end
        self._logger.warning("audit.repaired", seq=seq, files=[name for name, _ in copies])
        self._write(end, [encode(self._repair_entry(copies))])
        return self._end or end

    def _repair_entry(self, copies: Sequence[tuple[str, bytes]]) -> AuditEntry:
        detail = "; ".join(
            f"{len(torn)} torn bytes, sha256:{hashlib.sha256(torn).hexdigest()}, moved to {name}"
            for name, torn in copies
        )
        now = timestamp(self._wall_clock())
        return AuditEntry(now, REPAIR_OPERATION, "done", entrance="service", detail=detail)

    def _write(self, end: End, entries: Sequence[str]) -> list[str]:
        segment = self._open_segment(end)
        if end.size >= self._segment_bytes:
            end = self._begin_segment(end)
            segment = self._open_segment(end)
        head = end.head
        lines: list[bytes] = []
        audit_ids: list[str] = []
        for entry in entries:
            line, head = link(head, entry)
            lines.append(line)
            audit_ids.append(head.audit_id)
        content = b"".join(lines)
        failpoints.reach("audit_writing", lambda: write_all(segment, content[: len(content) // 2]))
        write_all(segment, content)
        self._fsync(segment)
        if end.size == 0:
            sync_directory(self._directory, self._fsync)
        written = End(end.segment, end.size + len(content), head)
        # Once more: what was synced into a file that has lost its name meanwhile is not durable for anybody.
        _require_in_place(segment, written)
        self._end = written
        return audit_ids

    def _open_segment(self, end: End) -> int:
        """Give the descriptor of the segment that the next record belongs into, if it is as `end` says."""
        if self._segment is None:
            create = 0 if end.size else os.O_CREAT
            self._segment = os.open(end.segment, os.O_WRONLY | os.O_APPEND | create, 0o600)
        _require_in_place(self._segment, end)
        return self._segment

    def _begin_segment(self, end: End) -> End:
        self._close_segment()
        self._end = End(self._directory / segment_name(end.head.seq + 1), 0, end.head)
        return self._end

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None

    def _give_up(self, error: AuditBrokenError) -> None:
        """Refuse from now on, and leave a note for the next start, which would find a chain that merely is shorter."""
        self._broken = error
        self._logger.error("audit.broken", problem=error.message)
        with suppress(OSError):
            note = f"{timestamp(self._wall_clock())} {error.message}\n"
            (self._directory / _LOSS_NOTE).write_text(note, encoding="utf-8")
            sync_directory(self._directory, self._fsync)

    def _refuse_after_loss(self) -> None:
        note = self._directory / _LOSS_NOTE
        if note.exists():
            msg = f"records of the audit log were lost, {note} says which: put them back, and then remove that file"
            raise AuditBrokenError(msg)


def _require_in_place(descriptor: int, end: End) -> None:
    """Raise `AuditUnavailableError` unless the segment's name still leads to the open file, which ends at `end`."""
    held = os.fstat(descriptor)
    try:
        named = end.segment.stat()
    except FileNotFoundError:
        msg = f"the audit log's segment {end.segment.name} is gone"
        raise AuditUnavailableError(msg) from None
    if (named.st_dev, named.st_ino, named.st_size) != (held.st_dev, held.st_ino, end.size):
        msg = f"the audit log's segment {end.segment.name} is not the file that was written: replaced, cut or added to"
        raise AuditUnavailableError(msg)
