"""The audit log on disk: durable before it answers, shared by many callers, and well again after faults."""

import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from signer.audit.verification import verify_directory
from signer.errors import AlreadyRunningError, AuditUnavailableError
from tests.unit.stores import (
    PATIENCE_S,
    CrashError,
    Disk,
    entry,
    in_threads,
    new_audit_log,
    records,
    start_program,
    wait_until,
)


@contextmanager
def recorded_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Note what is written during the block; it is written all the same."""
    writes: list[bytes] = []
    write = os.write

    def recorded(descriptor: int, content: bytes) -> int:
        writes.append(bytes(content))
        return write(descriptor, content)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", recorded)
        yield writes


def test_records_are_chained_in_private_files(tmp_path: Path) -> None:
    """Every entry gets its id, in order; only the service's user may read the files."""
    directory = tmp_path / "audit"
    with closing(new_audit_log(directory)) as log:
        audit_ids = log.append([entry(1), entry(2)]) + log.append([entry(3)])
        assert log.healthy
    assert [record["audit_id"] for record in records(directory)] == audit_ids
    assert [record["transaction_id"] for record in records(directory)] == ["TXN-1", "TXN-2", "TXN-3"]
    assert [audit_id[12:] for audit_id in audit_ids] == [f"-{seq:016d}" for seq in (1, 2, 3)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    result = verify_directory(directory)
    assert (result.ok, result.records, result.segments, result.notes) == (True, 3, 1, ())


def test_append_returns_only_after_fsync(tmp_path: Path) -> None:
    """While fsync has not returned, append has not either, although the bytes are in the file."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        returned = threading.Event()

        def append() -> None:
            log.append([entry(2)])
            returned.set()

        with disk.held():
            threading.Thread(target=append, daemon=True).start()
            assert disk.entered.wait(PATIENCE_S)
            assert len(records(tmp_path)) == 2
            assert not returned.is_set()
        assert returned.wait(PATIENCE_S)


def test_a_new_segment_is_durable_with_its_name(tmp_path: Path) -> None:
    """The first append into a segment syncs the file and then the directory; the next only the file."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        assert disk.synced == ["file", "directory"]
        log.append([entry(2)])
        assert disk.synced == ["file", "directory", "file"]


def test_concurrent_callers_share_one_fsync(tmp_path: Path) -> None:
    """Fifteen appends that arrive while one is being synced cost one further fsync."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(0)])
        syncs = len(disk.synced)

        def first() -> list[str]:
            return log.append([entry(1)])

        def behind() -> list[str]:
            assert disk.entered.wait(PATIENCE_S)
            return log.append([entry(2)])

        with disk.held():
            threads = threading.Thread(target=in_threads, args=([first, *[behind] * 15],))
            threads.start()
            wait_until(lambda: log._commits.waiting == 15)  # noqa: SLF001 - only the queue knows
        threads.join(PATIENCE_S)
        assert len(disk.synced) == syncs + 2
    assert verify_directory(tmp_path).records == 17


def test_a_failed_fsync_acknowledges_nobody_and_heals(tmp_path: Path) -> None:
    """A record whose fsync failed is not acknowledged; it stays in the chain, and the next one follows it."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        disk.fail_at = {len(disk.synced) + 1}
        with pytest.raises(AuditUnavailableError, match="cannot be written: Input/output error"):
            log.append([entry(2)])
        unhealthy = not log.healthy
        log.append([entry(3)])
        assert (unhealthy, log.healthy) == (True, True)
    assert [record["transaction_id"] for record in records(tmp_path)] == ["TXN-1", "TXN-2", "TXN-3"]
    assert verify_directory(tmp_path).ok


def test_an_unknown_fault_is_no_reason_to_go_on_blindly(tmp_path: Path) -> None:
    """After an exception nobody expected, the end of the chain is looked for as after a failed write."""
    disk = Disk()
    disk.error = CrashError()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        disk.fail_at = {len(disk.synced) + 1}
        with pytest.raises(AuditUnavailableError, match="CrashError"):
            log.append([entry(2)])
        log.append([entry(3)])
    assert verify_directory(tmp_path).records == 3


def test_what_a_failed_fsync_left_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped it and call it clean, so it is written once more; what was durable is not."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        disk.fail_at = {len(disk.synced) + 1}
        with pytest.raises(AuditUnavailableError):
            log.append([entry(2)])
        with recorded_writes(monkeypatch) as writes:
            log.append([entry(3)])
    assert [b'"TXN-1"' in write or b'"TXN-3"' in write for write in writes] == [False, True]
    assert b'"TXN-2"' in writes[0]


def test_a_new_segment_whose_name_is_not_durable_heals(tmp_path: Path) -> None:
    """When the directory cannot be synced nobody is acknowledged; the next append syncs it and goes on."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        disk.fail_at = {2}
        with pytest.raises(AuditUnavailableError):
            log.append([entry(1)])
        assert disk.synced == ["file", "directory"]
        log.append([entry(2)])
        assert "directory" in disk.synced[2:]
    result = verify_directory(tmp_path)
    assert (result.ok, result.records) == (True, 2)


def test_a_hanging_disk_is_named_in_time(tmp_path: Path) -> None:
    """A disk that does not answer frees the caller with the named error, and the log heals when it answers."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, timeout_s=0.05, fsync=disk.fsync)) as log:
        with disk.held():
            with pytest.raises(AuditUnavailableError, match="did not make it durable"):
                log.append([entry(1)])
            assert not log.healthy
        wait_until(lambda: log.healthy)
    assert verify_directory(tmp_path).ok


def test_a_full_disk_stops_acknowledging_and_recovers_by_itself(tmp_path: Path) -> None:
    """A real write error in the middle of a record: nothing acknowledged is lost, and the torn part is told of."""
    with start_program("fill_audit", tmp_path) as program:
        said = [json.loads(line) for line in program.stdout or []]
    *good, failed, recovered = said
    assert len(good) > 10
    assert (failed["code"], failed["healthy"]) == ("audit_unavailable", False)
    assert recovered["healthy"]
    durable = [audit_id for line in [*good, recovered] for audit_id in line["durable"]]
    found = {record["audit_id"]: record["operation"] for record in records(tmp_path)}
    assert [found.get(audit_id) for audit_id in durable] == ["sign"] * len(durable)
    result = verify_directory(tmp_path)
    assert (result.ok, len(result.repairs), result.notes) == (True, 1, ())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Neither this process nor another one can open a log that is held; afterwards it is free."""
    with closing(new_audit_log(tmp_path)):
        with pytest.raises(AlreadyRunningError, match="another process holds the audit log"):
            new_audit_log(tmp_path)
        with start_program("open_both", tmp_path, tmp_path / "ledger.sqlite") as program:
            said = [json.loads(line) for line in program.stdout or []]
        assert [line["code"] for line in said] == ["already_running", None]
    new_audit_log(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A path that is not usable keeps the service from starting with the audit log's own error."""
    (tmp_path / "file").touch()
    with pytest.raises(AuditUnavailableError, match="cannot be opened: Not a directory"):
        new_audit_log(tmp_path / "file" / "audit")


def test_a_closed_log_takes_nothing(tmp_path: Path) -> None:
    """After closing, appending is refused with the named error."""
    log = new_audit_log(tmp_path)
    log.close()
    with pytest.raises(AuditUnavailableError, match="closed"):
        log.append([entry(1)])
