"""A directory of audit segments and its one writer: finds the end of the chain, tells of repairs, appends."""

import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from signer.audit.chain import REPAIR_OPERATION, encode, link, segment_name
from signer.audit.recovery import End, Recovery
from signer.errors import AuditBrokenError, AuditUnavailableError
from signer.logs import Logger
from signer.ports import AuditEntry
from signer.private_files import lock_exclusively, make_private_directory, sync_directory, write_all
from signer.work import timestamp


class ChainDirectory:
    """The chain in `directory`, which this process alone may write; one thread at a time.

    A segment that reached `segment_bytes` is followed by a new one. Torn bytes at the end, left by a crash, were never
    acknowledged: they are moved into a file of their own, and the next record tells of it.
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

    def open(self) -> None:
        """Take the directory and find the end of the chain.

        Raises `AlreadyRunningError`, `AuditBrokenError` if the last segment contradicts itself,
        `AuditUnavailableError`.
        """
        try:
            make_private_directory(self._directory)
            self._lock = lock_exclusively(self._directory / ".lock", f"the audit log {self._directory}")
            self._recover()
        except OSError as error:
            self.close()
            msg = f"the audit log {self._directory} cannot be opened: {error.strerror}"
            raise AuditUnavailableError(msg) from error
        except AuditBrokenError:
            self.close()
            raise

    def append(self, entries: Sequence[str]) -> list[str]:
        """Chain encoded entries in one write and one fsync, and give their audit ids.

        Raises `AuditUnavailableError`; what the segment holds is unknown then, and the next call finds out first.
        """
        try:
            end = self._recover() if self._segment is None or self._end is None else self._end
            return self._write(end, entries)
        except BaseException as error:
            self._close_segment()
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

    def _recover(self) -> End:
        """Find the end of the chain, and tell of the torn bytes that were moved aside.

        A copy of torn bytes bears the number of the record that tells of it. As long as that is the next record, it was
        not written: so a crash in here is made good by the next opening.
        """
        self._end = self._recovery.find_end_after(self._end) if self._end else self._recovery.find_end()
        seq = self._end.head.seq + 1
        copies = [(file.name, file.read_bytes()) for file in self._recovery.copies(seq)]
        if copies:
            self._logger.warning("audit.repaired", seq=seq, files=[name for name, _ in copies])
            self._write(self._end, [encode(self._repair_entry(copies))])
        return self._end

    def _repair_entry(self, copies: Sequence[tuple[str, bytes]]) -> AuditEntry:
        detail = "; ".join(
            f"{len(torn)} torn bytes, sha256:{hashlib.sha256(torn).hexdigest()}, moved to {name}"
            for name, torn in copies
        )
        now = timestamp(self._wall_clock())
        return AuditEntry(now, REPAIR_OPERATION, "done", entrance="service", detail=detail)

    def _write(self, end: End, entries: Sequence[str]) -> list[str]:
        if end.size >= self._segment_bytes:
            end = self._begin_segment(end)
        head = end.head
        lines: list[bytes] = []
        audit_ids: list[str] = []
        for entry in entries:
            line, head = link(head, entry)
            lines.append(line)
            audit_ids.append(head.audit_id)
        content = b"".join(lines)
        if self._segment is None:
            self._segment = os.open(end.segment, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        write_all(self._segment, content)
        self._fsync(self._segment)
        if end.size == 0:
            sync_directory(self._directory, self._fsync)
        self._end = End(end.segment, end.size + len(content), head)
        return audit_ids

    def _begin_segment(self, end: End) -> End:
        self._close_segment()
        self._end = End(self._directory / segment_name(end.head.seq + 1), 0, end.head)
        return self._end

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None
