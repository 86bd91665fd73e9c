"""Opens ledger and audit log, and refuses where one of them is lost, or older than the other tells."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta

from signer.audit.file import FileAuditLog
from signer.audit.latest import last_signature
from signer.audit.segments import ChainDirectory
from signer.errors import ConfigurationError, ConflictError
from signer.ledger.dynamodb import DynamodbLedger
from signer.ledger.sqlite import SqliteLedger
from signer.logs import Logger
from signer.metrics import Metrics
from signer.ports import AuditEntry, Claim, Claimed
from signer.settings import LedgerSettings, Settings
from signer.work import timestamp

Ledger = SqliteLedger | DynamodbLedger


@contextmanager
def open_stores(
    settings: Settings, metrics: Metrics, logger: Logger, wall_clock: Callable[[], datetime]
) -> Iterator[tuple[FileAuditLog, Ledger]]:
    """Open audit log and ledger; files are made together: where only one of them is new, the other one's twin is gone.

    Raises `ConfigurationError` then, and makes none, unless the settings say `accept_new`. A table is made by nobody
    here, and shared by processes that each begin an audit log of their own.
    """
    with ExitStack() as stack:
        chain = ChainDirectory(settings.audit.directory, settings.audit.segment_bytes, logger, wall_clock)
        audit = stack.enter_context(closing(FileAuditLog(chain, settings.audit.commit_timeout_s, metrics)))
        may_be_new = audit.is_new or settings.ledger.accept_new
        ledger = stack.enter_context(closing(_open_ledger(settings.ledger, metrics, may_be_new=may_be_new)))
        ledger_is_new = isinstance(ledger, SqliteLedger) and ledger.is_new
        was_in_use = isinstance(ledger, SqliteLedger) and not ledger.is_new
        if audit.is_new and was_in_use and not settings.audit.accept_new:
            msg = (
                f"the audit log {settings.audit.directory} is gone or empty, while the ledger {settings.ledger.path} "
                "was in use: put it back. If it is lost for good: audit.accept_new = true"
            )
            raise ConfigurationError(msg)
        made = [what for what, is_new in (("audit log", audit.is_new), ("ledger", ledger_is_new)) if is_new]
        if made:
            # At once, before a start that fails later leaves a new ledger beside an audit log without a record.
            detail = ", ".join([f"new: {' and '.join(made)}", *accepted(settings)])
            record(audit, wall_clock(), "store.begin", detail)
        if not settings.ledger.accept_new:
            _require_same_age(settings, ledger, wall_clock())
        yield audit, ledger


def accepted(settings: Settings) -> list[str]:
    """Name the settings that let a lost file be replaced, where they are set."""
    flags = {"audit.accept_new": settings.audit.accept_new, "ledger.accept_new": settings.ledger.accept_new}
    return [f"{name} is set" for name, is_set in flags.items() if is_set]


def record(audit: FileAuditLog, now: datetime, operation: str, detail: str) -> None:
    """Make durable what the service itself does; raises `AuditUnavailableError`."""
    audit.append([AuditEntry(timestamp(now), operation, "done", entrance="service", detail=detail)])


def prove(ledger: Ledger) -> None:
    """Claim what no caller can name, and take it back: two durable commits that leave nothing."""
    claimed = ledger.claim([Claim("~", "~readiness", bytes(32), "~")])
    ledger.withdraw([claim for claim in claimed if isinstance(claim, Claimed)])


def _require_same_age(settings: Settings, ledger: Ledger, now: datetime) -> None:
    """Refuse a ledger that does not know the last signature on record: an older copy, or another one.

    Asked by claiming it, which a ledger that knows it answers without a change.
    """
    told = last_signature(settings.audit.directory)
    if told is None or datetime.fromisoformat(told["time"]) < now - timedelta(days=settings.ledger.retention_days - 1):
        return
    digest = bytes.fromhex(told["digest"].removeprefix("sha256:"))
    (answer,) = ledger.claim([Claim(told["key_alias"], told["transaction_id"], digest, told["algorithm"])])
    if isinstance(answer, Claimed):
        ledger.withdraw([answer])
        ledger.release([answer])
    if isinstance(answer, ConflictError) or (isinstance(answer, Claimed) and answer.is_first):
        msg = (
            f"the ledger does not know of signature {told['audit_id']}, which is on record: it is an older copy or "
            "another one, and transactions could be signed a second time over other content. Put the right one back. "
            "If it is lost for good: ledger.accept_new = true"
        )
        raise ConfigurationError(msg)


def _open_ledger(settings: LedgerSettings, metrics: Metrics, *, may_be_new: bool) -> Ledger:
    if settings.table is not None:
        return DynamodbLedger(settings.table, settings, metrics, time.time)
    if settings.path is None:  # pragma: no cover - the settings exclude it
        raise AssertionError
    return SqliteLedger(settings.path, settings, metrics, time.time, may_be_new=may_be_new)
