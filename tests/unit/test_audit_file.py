"""The audit log on disk: durable before it answers, continued after every kind of crash, refused when tampered with."""

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from signer.audit.chain import Fault
from signer.audit.verification import verify_directory
from signer.errors import AlreadyRunningError, AuditBrokenError, AuditUnavailableError, InvalidInputError
from tests.unit.stores import (
    PATIENCE_S,
    chain_directory,
    entry,
    in_threads,
    new_audit_log,
    start_program,
    wait_until,
)


class Disk:
    """The real fsync, which says what it did, hangs while held, and fails when told to."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.fail_at: set[int] = set()
        self.error: Exception = OSError(5, "Input/output error")
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def fsync(self, descriptor: int) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.synced.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if len(self.synced) in self.fail_at:
            raise self.error
        os.fsync(descriptor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let every fsync hang during the block."""
        self.gate.clear()
        self.entered.clear()
        yield
        self.gate.set()


class CrashError(Exception):
    """The process ends here."""


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(directory.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def torn_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("torn-*.bin"))


def written(directory: Path, count: int = 3) -> Path:
    """Make a log of `count` records and give its segment."""
    with closing(new_audit_log(directory)) as log:
        log.append([entry(number) for number in range(count)])
    (segment,) = directory.glob("*.jsonl")
    return segment


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


def append_bytes(file: Path, content: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(content)


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
        returned = threading.Event()

        def append() -> None:
            log.append([entry(1)])
            returned.set()

        with disk.held():
            threading.Thread(target=append, daemon=True).start()
            assert disk.entered.wait(PATIENCE_S)
            assert len(records(tmp_path)) == 1
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


def test_the_chain_runs_on_across_segments_and_restarts(tmp_path: Path) -> None:
    """Segments are rotated by size and named after their first record; a restart continues where the last one ended."""
    for start in range(3):
        chain = chain_directory(tmp_path, segment_bytes=1000)
        chain.open()
        for number in range(10):
            chain.append([f'"time":"t","operation":"sign","outcome":"signed","detail":"{start}-{number}"'])
        chain.close()
    segments = sorted(tmp_path.glob("*.jsonl"))
    assert len(segments) > 5
    firsts = [json.loads(segment.read_bytes().splitlines()[0])["seq"] for segment in segments]
    assert [segment.name for segment in segments] == [f"audit-{seq:016d}.jsonl" for seq in firsts]
    result = verify_directory(tmp_path)
    assert (result.ok, result.records, result.segments) == (True, 30, len(segments))


TORN = {
    "half a record": b'{"v":1,"chain":"abc","se',
    "one byte": b"{",
    "pages that were never written": b"\0" * 5000,
    "half a record, then such pages": b'{"v":1,' + b"\0" * 5000,
    "a hole in the last line": b"\0" * 4096 + b'","hash":"00"}\n',
    "a hole, then half a record": b"\0" * 4096 + b'"}\n{"v":1',
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN.keys())
def test_torn_bytes_are_moved_aside_and_told_of(tmp_path: Path, torn: bytes) -> None:
    """What a crash left behind the last record is kept in a file, and the next record names it with its hash."""
    append_bytes(written(tmp_path), torn)
    with capture_logs() as logged, closing(new_audit_log(tmp_path)) as log:
        log.append([entry(9)])
    (copy,) = torn_files(tmp_path)
    assert copy.name == "torn-20280308T120000.123456Z-0000000000000004.bin"
    assert copy.read_bytes() == torn
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    repair = records(tmp_path)[3]
    assert repair["operation"] == "audit.repair"
    digest = hashlib.sha256(torn).hexdigest()
    assert repair["detail"] == f"{len(torn)} torn bytes, sha256:{digest}, moved to {copy.name}"
    result = verify_directory(tmp_path)
    assert (result.ok, result.records, result.repairs, result.notes) == (True, 5, (4,), ())
    assert [(event["event"], event["log_level"]) for event in logged] == [("audit.repaired", "warning")]


def test_a_torn_first_record_of_a_segment_is_repaired(tmp_path: Path) -> None:
    """A crash in the first write of a segment, or right after its creation, leaves a chain that goes on."""
    for torn in (b"", b'{"v":1', b""):
        chain = chain_directory(tmp_path, segment_bytes=1)
        chain.open()
        (audit_id,) = chain.append(['"time":"t","operation":"sign","outcome":"signed"'])
        chain.close()
        append_bytes(tmp_path / f"audit-{int(audit_id[13:]) + 1:016d}.jsonl", torn)
    result = verify_directory(tmp_path)
    assert (result.ok, result.records, result.repairs, result.notes) == (True, 4, (3,), ())


def test_a_torn_very_first_record_is_repaired(tmp_path: Path) -> None:
    """A log whose first write was cut short begins with the record of its repair."""
    (tmp_path / "audit-0000000000000001.jsonl").write_bytes(b'{"v":')
    new_audit_log(tmp_path).close()
    assert [record["operation"] for record in records(tmp_path)] == ["audit.repair"]
    assert verify_directory(tmp_path).ok


@pytest.mark.parametrize("step", range(1, 8))
def test_a_repair_that_is_cut_short_is_made_good(tmp_path: Path, step: int) -> None:
    """A crash at any fsync of the repair loses no torn byte, and the next start tells of it exactly once."""
    append_bytes(written(tmp_path), b'{"v":1')
    disk = Disk()
    disk.fail_at, disk.error = {step}, CrashError()
    chain = chain_directory(tmp_path, fsync=disk.fsync)
    try:
        chain.open()
    except CrashError:
        assert len(disk.synced) == step
    finally:
        chain.close()
    new_audit_log(tmp_path).close()
    assert [copy.read_bytes() for copy in torn_files(tmp_path)] == [b'{"v":1']
    result = verify_directory(tmp_path)
    assert (result.ok, result.repairs, result.notes) == (True, (4,), ())


def test_a_record_of_the_repair_that_is_torn_itself_is_repaired(tmp_path: Path) -> None:
    """Two crashes in a row leave two copies, and one record tells of both."""
    segment = written(tmp_path)
    append_bytes(segment, b'{"v":1')
    new_audit_log(tmp_path).close()
    content = segment.read_bytes()
    segment.write_bytes(content[:-20])
    (first,) = torn_files(tmp_path)
    first.rename(tmp_path / "torn-20280308T115959.000000Z-0000000000000004.bin")
    new_audit_log(tmp_path).close()
    assert len(torn_files(tmp_path)) == 2
    assert all(copy.name in records(tmp_path)[3]["detail"] for copy in torn_files(tmp_path))
    assert verify_directory(tmp_path).repairs == (4,)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [*lines[:-1], lines[-1].replace(b"signed", b"sigmed")],
        lambda lines: [lines[0].replace(b"signed", b"sigmed"), *lines[1:]],
        lambda lines: [lines[0], lines[0].replace(b"signed", b"\0\0\0\0\0\0"), *lines[1:]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [*lines, b"\n"],
    ],
    ids=["last", "first", "hole before sound records", "dropped", "empty line"],
)
def test_a_log_that_was_tampered_with_is_not_continued(
    tmp_path: Path, tamper: Callable[[list[bytes]], list[bytes]]
) -> None:
    """A last segment that contradicts itself keeps the service from starting, and stays as it is."""
    segment = written(tmp_path)
    segment.write_bytes(b"".join(tamper(segment.read_bytes().splitlines(keepends=True))))
    before = segment.read_bytes()
    for _ in range(2):
        with pytest.raises(AuditBrokenError, match="signer audit verify"):
            new_audit_log(tmp_path)
    assert segment.read_bytes() == before
    assert not verify_directory(tmp_path).ok


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


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    """Three times a writer of four threads is killed in the middle; the next continues one whole chain."""
    durable: list[str] = []
    for _ in range(3):
        with start_program("append_forever", tmp_path) as program:
            assert program.stdout is not None
            lines = [program.stdout.readline() for _ in range(25)]
            program.kill()
            lines += program.stdout.readlines()
        durable += [audit_id for line in lines if line.endswith("\n") for audit_id in json.loads(line)["durable"]]
    new_audit_log(tmp_path).close()
    assert set(durable) <= {record["audit_id"] for record in records(tmp_path)}
    result = verify_directory(tmp_path)
    assert result.ok
    assert result.notes == ()


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


def test_tampering_while_the_log_is_down_keeps_it_down(tmp_path: Path) -> None:
    """When the segment was changed after a failed commit, nothing more is acknowledged."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        disk.fail_at = {len(disk.synced) + 1}
        with pytest.raises(AuditUnavailableError):
            log.append([entry(2)])
        (segment,) = tmp_path.glob("*.jsonl")
        segment.write_bytes(segment.read_bytes().replace(b"TXN-2", b"TXN-3"))
        with pytest.raises(AuditUnavailableError, match="the audit chain is broken"):
            log.append([entry(4)])


def several_segments(directory: Path) -> list[Path]:
    """A chain of ten records, two in each segment."""
    chain = chain_directory(directory, segment_bytes=500)
    chain.open()
    for number in range(10):
        chain.append([f'"time":"t","operation":"sign","outcome":"signed","detail":"{number}"'])
    chain.close()
    return sorted(directory.glob("*.jsonl"))


def test_verification_names_the_place_across_segments(tmp_path: Path) -> None:
    """A segment that is gone, copied, or has a changed line is named with file and line."""
    segments = several_segments(tmp_path)
    kept = segments[1].read_bytes()

    segments[1].unlink()
    problem = verify_directory(tmp_path).problem
    assert problem is not None
    assert (problem.kind, problem.file, problem.line, problem.seq) == (Fault.MISSING, segments[2].name, 1, 3)
    assert problem.message == "records 3 to 4 are missing: record 5 stands here"

    segments[1].write_bytes(kept)
    copy = tmp_path / "audit-0000000000000004.jsonl"
    copy.write_bytes(kept)
    problem = verify_directory(tmp_path).problem
    assert problem is not None
    assert (problem.kind, problem.file, problem.line) == (Fault.DUPLICATE, copy.name, 1)

    copy.unlink()
    segments[4].write_bytes(segments[4].read_bytes().replace(b'"9"', b'"8"'))
    problem = verify_directory(tmp_path).problem
    assert problem is not None
    assert (problem.kind, problem.file, problem.line, problem.seq) == (Fault.ALTERED, segments[4].name, 2, 10)


def test_verification_notes_what_does_not_belong(tmp_path: Path) -> None:
    """Files of other kinds, copies nobody told of and copies that are gone are mentioned; the chain stays whole."""
    append_bytes(written(tmp_path), b"torn")
    new_audit_log(tmp_path).close()
    (copy,) = torn_files(tmp_path)
    stray = copy.rename(tmp_path / "torn-20280308T120000.000000Z-0000000000000099.bin")
    (tmp_path / "notes.txt").touch()
    result = verify_directory(tmp_path)
    assert result.ok
    assert result.notes == (
        "notes.txt is no part of an audit log",
        f"{stray.name} holds torn bytes that no record tells of",
        "the torn bytes that record 4 tells of are gone",
    )


def test_verification_of_nothing_is_no_proof(tmp_path: Path) -> None:
    """A directory without records has a problem, and one that cannot be read is an error."""
    problem = verify_directory(tmp_path).problem
    assert problem is not None
    assert problem.kind is Fault.MISSING
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        verify_directory(tmp_path / "absent")
