"""The audit log after a crash: torn bytes are kept and told of, and what was tampered with is not continued."""

import hashlib
import json
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from signer.audit.verification import verify_directory
from signer.errors import AuditBrokenError, AuditUnavailableError
from tests.unit.stores import (
    CrashError,
    Disk,
    append_bytes,
    chain_directory,
    entry,
    new_audit_log,
    records,
    start_program,
    torn_files,
    written,
)

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
    """A log whose first write was cut short begins with the record of its repair, once something is appended."""
    (tmp_path / "audit-0000000000000001.jsonl").write_bytes(b'{"v":')
    with closing(new_audit_log(tmp_path)) as log:
        log.append([entry(1)])
    assert [record["operation"] for record in records(tmp_path)] == ["audit.repair", "sign"]
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
