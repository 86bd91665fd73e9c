"""The audit log on a local disk: many callers share one write and one fsync, and none returns before it."""

from collections.abc import Sequence

from signer.audit.chain import encode
from signer.audit.segments import ChainDirectory
from signer.errors import AuditUnavailableError
from signer.group_commit import GroupCommit
from signer.metrics import Metrics
from signer.ports import AuditEntry


class FileAuditLog:
    """An `AuditLog` over `chain`, which it opens and closes; raises what `ChainDirectory.open` raises."""

    def __init__(self, chain: ChainDirectory, commit_timeout_s: float, metrics: Metrics) -> None:
        chain.open()
        self._chain = chain
        self._commits: GroupCommit[str, str] = GroupCommit(
            "audit", chain.append, AuditUnavailableError, commit_timeout_s, metrics
        )

    @property
    def healthy(self) -> bool:
        """False from a commit that failed or hangs until the next that succeeds."""
        return self._commits.healthy

    @property
    def is_new(self) -> bool:
        """Whether there was no record when the log was opened."""
        return self._chain.is_new

    def append(self, entries: Sequence[AuditEntry]) -> list[str]:
        """Chain the entries, and return their audit ids once they are durable; see `AuditLog`."""
        # Encoded by the caller's thread: an entry that cannot be fails alone.
        return self._commits.submit([encode(entry) for entry in entries])

    def close(self) -> None:
        """Finish what is queued and let go of the directory; later calls raise `AuditUnavailableError`."""
        if self._commits.close():
            self._chain.close()
