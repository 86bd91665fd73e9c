"""The ledger or the audit log is taken away, while the service runs or between two runs: it never signs as if new."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signer.demo.stack import Stack
from tests.service.running import audit_records, ready, running, sign, until

CONFIGURATION = 78


def refused_start(stack: Stack) -> str:
    """Try to start; gives what was said on the way to exit status 78."""
    command = [sys.executable, "-m", "signer", "serve", "--config", str(stack.config)]
    done = subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == CONFIGURATION, done.stderr
    return done.stderr


def starts(stack: Stack) -> list[dict[str, Any]]:
    """The records of starts."""
    return audited(stack, "service.start")


def audited(stack: Stack, operation: str) -> list[dict[str, Any]]:
    """The records of one operation."""
    return [record for record in audit_records(stack) if record["operation"] == operation]


def ledger_files(stack: Stack) -> list[Path]:
    """The ledger, its write-ahead log and its lock."""
    return list(stack.directory.glob("ledger.sqlite3*"))


def move_the_segment(directory: Path) -> None:
    """What logrotate does."""
    (segment,) = directory.glob("*.jsonl")
    segment.rename(directory.parent / "rotated.jsonl")


def empty_the_segment(directory: Path) -> None:
    (segment,) = directory.glob("*.jsonl")
    segment.write_bytes(b"")


@pytest.mark.parametrize("lose", [shutil.rmtree, move_the_segment, empty_the_segment])
def test_an_audit_log_that_is_taken_away_stops_the_signing(stack: Stack, lose: Callable[[Path], object]) -> None:
    """No signature leaves from then on, the service is not ready, and no start begins a chain in silence."""
    stack.environment["SIGNER_READINESS_INTERVAL_S"] = "0.5"
    with running(stack):
        assert sign(stack, "BEFORE").status_code == 200
        lose(stack.audit_directory)
        for _ in range(3):
            answer = sign(stack, "AFTER")
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")
        until(lambda: not ready(stack), "not ready")
    for _ in range(2):
        assert refused_start(stack).startswith(("audit_broken: ", "configuration: the audit log "))


def test_a_missing_audit_log_is_replaced_only_on_purpose(stack: Stack) -> None:
    """A start beside a ledger that was in use is refused, names directory and setting; with it, the record says so."""
    with running(stack):
        pass
    shutil.rmtree(stack.audit_directory)
    for _ in range(2):
        said = refused_start(stack)
        assert str(stack.audit_directory) in said
        assert "audit.accept_new" in said
    stack.environment["SIGNER_AUDIT__ACCEPT_NEW"] = "true"
    with running(stack):
        (start,) = starts(stack)
        assert "audit.accept_new" in start["detail"]
        (begin,) = audited(stack, "store.begin")
        assert begin["detail"] == "new: audit log, audit.accept_new is set"


def test_a_missing_ledger_is_replaced_only_on_purpose(stack: Stack) -> None:
    """An empty ledger would sign a transaction over a second content: no start makes one without being told to."""
    with running(stack):
        assert sign(stack, "T").status_code == 200
    for file in ledger_files(stack):
        file.unlink()
    for _ in range(2):
        said = refused_start(stack)
        assert str(stack.directory / "ledger.sqlite3") in said
        assert "ledger.accept_new" in said
    stack.environment["SIGNER_LEDGER__ACCEPT_NEW"] = "true"
    with running(stack):
        assert ["ledger.accept_new" in start["detail"] for start in starts(stack)] == [False, True]
        assert [begin["detail"] for begin in audited(stack, "store.begin")] == [
            "new: audit log and ledger",
            "new: ledger, ledger.accept_new is set",
        ]
    del stack.environment["SIGNER_LEDGER__ACCEPT_NEW"]
    with running(stack):
        assert ["ledger.accept_new" in start["detail"] for start in starts(stack)] == [False, True, False]


def test_a_ledger_that_is_taken_away_stops_the_signing(stack: Stack) -> None:
    """No transaction is claimed in a file that nobody finds again, and the next start does not make another."""
    with running(stack):
        assert sign(stack, "BEFORE").status_code == 200
        for file in ledger_files(stack):
            file.unlink()
        for _ in range(2):
            answer = sign(stack, "AFTER")
            assert (answer.status_code, answer.json()["code"]) == (503, "ledger_unavailable")
        until(lambda: not ready(stack), "not ready")
    assert "ledger.accept_new" in refused_start(stack)


def test_a_first_start_that_failed_may_be_tried_again(stack: Stack) -> None:
    """A wrong key at the very first start leaves nothing behind that the second would take for a loss."""
    stack.environment["SIGNER_KEYS__SETTLEMENT__LABEL"] = "elsewhere"
    for _ in range(2):
        assert refused_start(stack).startswith("key_refused: ")
    del stack.environment["SIGNER_KEYS__SETTLEMENT__LABEL"]
    with running(stack):
        assert sign(stack, "T").status_code == 200


def test_a_ledger_that_is_no_database_is_a_matter_of_settings(stack: Stack) -> None:
    """Starting again does not help: exit status 78."""
    (stack.directory / "ledger.sqlite3").write_bytes(b"another kind of file" * 100)
    assert "ledger.sqlite3 is not a database" in refused_start(stack)
