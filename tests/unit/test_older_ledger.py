"""A ledger that is older than the audit log beside it is refused at start: what was signed since would be free."""

import shutil
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signer import logs
from signer.audit.file import FileAuditLog
from signer.errors import ConfigurationError
from signer.ledger.sqlite import SqliteLedger
from signer.ports import AuditEntry, Claimed
from signer.settings import Settings
from signer.stores import open_stores
from signer.work import timestamp
from tests.unit.stores import claim, new_ledger, new_metrics, signature


class Site:
    """An audit log and a ledger, opened as the service does; `ledger` holds the settings of the latter."""

    def __init__(self, directory: Path) -> None:
        self._audit = directory / "audit"
        self.path = directory / "ledger" / "ledger.sqlite"
        self._kept = directory / "kept"
        self.now = datetime.now(UTC)
        self.ledger: dict[str, Any] = {}

    def start(self, *transaction_ids: str) -> None:
        """Start, sign these, and end."""
        settings = Settings(
            hsm={"module": "module.so", "token": "token", "pin": "pin"},
            keys={"settlement": {"label": "label"}},
            ledger={"path": self.path, **self.ledger},
            audit={"directory": self._audit},
        )
        with open_stores(settings, new_metrics(), logs.get("test"), lambda: self.now) as (audit, ledger):
            assert isinstance(ledger, SqliteLedger)
            for transaction_id in transaction_ids:
                self._sign(audit, ledger, transaction_id)
            flag = ", ledger.accept_new is set" if self.ledger.get("accept_new") else ""
            audit.append([AuditEntry(timestamp(self.now), "service.start", "done", detail=f"signer 1{flag}")])

    def _sign(self, audit: FileAuditLog, ledger: SqliteLedger, transaction_id: str) -> None:
        (claimed,) = ledger.claim([claim(transaction_id)])
        assert isinstance(claimed, Claimed)
        wanted = claimed.claim
        signed = AuditEntry(
            timestamp(self.now), "sign", "signed", transaction_id=transaction_id, key_alias=wanted.key_alias,
            algorithm=wanted.algorithm, digest=f"sha256:{wanted.digest.hex()}",
        )  # fmt: skip
        audit.append([signed, replace(signed, operation="probe", outcome="done")])
        assert ledger.complete([(claimed, signature("S"))]) == [None]

    def keep_ledger(self) -> None:
        """Make a copy of it."""
        shutil.copytree(self.path.parent, self._kept)

    def restore_ledger(self) -> None:
        """Put the copy in its place."""
        shutil.rmtree(self.path.parent)
        shutil.copytree(self._kept, self.path.parent)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.start("BEFORE")
    made.keep_ledger()
    made.start("AFTER")
    return made


def test_the_ledger_in_use_is_taken(site: Site) -> None:
    """Also where nothing was signed since the last start."""
    site.start()
    site.start()


def test_an_older_copy_is_refused(site: Site) -> None:
    """However often: asking binds nothing. The signature that it does not know is named."""
    site.restore_ledger()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"does not know of signature [0-9a-f]{12}-0+5.*ledger.accept_new"):
            site.start()


def test_it_is_taken_on_purpose_and_then_in_use(site: Site) -> None:
    """What stands on record before need not be known to it, and what comes after must."""
    site.restore_ledger()
    site.ledger["accept_new"] = True
    site.start()
    site.ledger.clear()
    site.start()
    site.start("LATER")
    site.restore_ledger()
    with pytest.raises(ConfigurationError):
        site.start()


def test_what_is_beyond_its_retention_need_not_be_known(site: Site) -> None:
    """The ledger may have forgotten it."""
    site.ledger["retention_days"] = 30
    site.restore_ledger()
    site.now += timedelta(days=31)
    site.start()


def test_one_that_knows_it_otherwise_is_refused(tmp_path: Path) -> None:
    """Bound to another digest than was signed, it is another ledger."""
    site = Site(tmp_path)
    site.start()
    site.keep_ledger()
    site.start("T")
    site.restore_ledger()
    with closing(new_ledger(site.path)) as ledger:
        assert isinstance(ledger.claim([claim("T", b"other")])[0], Claimed)
    with pytest.raises(ConfigurationError):
        site.start()
