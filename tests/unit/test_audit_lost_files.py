"""The audit log's files are taken away while it runs: nothing is acknowledged over a gap."""

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from signer.audit.verification import verify_directory
from signer.errors import AuditBrokenError, AuditUnavailableError
from tests.unit.stores import Disk, append_bytes, chain_directory, entry, new_audit_log, records, torn_files, written

ENTRY = '"time":"t","operation":"sign","outcome":"signed"'


def only_segment(directory: Path) -> Path:
    (segment,) = directory.glob("*.jsonl")
    return segment


def rotate_away(directory: Path) -> None:
    """What logrotate does: the file goes, another takes its name."""
    segment = only_segment(directory)
    segment.rename(directory.with_name("rotated"))
    segment.touch()


def keep_the_first_record(directory: Path) -> None:
    """Put a copy in place that lacks the newest record."""
    segment = only_segment(directory)
    copy = segment.with_suffix(".copy")
    copy.write_bytes(segment.read_bytes().splitlines(keepends=True)[0])
    copy.rename(segment)


def cut_off_the_beginning(directory: Path) -> None:
    """Put a copy in place that lacks the oldest record."""
    segment = only_segment(directory)
    copy = segment.with_suffix(".copy")
    copy.write_bytes(segment.read_bytes().splitlines(keepends=True)[-1])
    copy.rename(segment)


def remove_and_make_anew(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


LOSSES: dict[str, Callable[[Path], object]] = {
    "directory removed": shutil.rmtree,
    "directory made anew": remove_and_make_anew,
    "segment removed": lambda directory: only_segment(directory).unlink(),
    "segment moved away": lambda directory: only_segment(directory).rename(directory.with_name("moved")),
    "segment rotated": rotate_away,
    "emptied": lambda directory: os.truncate(only_segment(directory), 0),
    "cut in a record": lambda directory: os.truncate(only_segment(directory), 700),
    "older copy": keep_the_first_record,
    "beginning cut off": cut_off_the_beginning,
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
def test_records_that_are_gone_end_the_log_for_good(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    """Nothing is acknowledged from the loss on, nothing is written over it, and an empty directory is no cure."""
    directory = tmp_path / "audit"
    with closing(new_audit_log(directory)) as log:
        for number in range(3):
            log.append([entry(number)])
        lose(directory)
        left = {file.name: file.read_bytes() for file in directory.glob("*.jsonl")}
        for attempt in range(3):
            with pytest.raises(AuditUnavailableError, match=r"gone|is not the file" if attempt == 0 else "are gone"):
                log.append([entry(9)])
            assert not log.healthy
        assert {file.name: file.read_bytes() for file in directory.glob("*.jsonl")} == left
        directory.mkdir(exist_ok=True)
        with pytest.raises(AuditUnavailableError, match="are gone"):
            log.append([entry(9)])


def test_a_loss_outlives_the_process(tmp_path: Path) -> None:
    """A start refuses too, until a person has put the file back and removed the note; then the chain goes on."""
    directory, moved = tmp_path / "audit", tmp_path / "moved"
    with closing(new_audit_log(directory)) as log:
        log.append([entry(1)])
        segment = only_segment(directory)
        segment.rename(moved)
        for _ in range(2):
            with pytest.raises(AuditUnavailableError):
                log.append([entry(2)])
        moved.rename(segment)
        with pytest.raises(AuditUnavailableError, match="are gone"):
            log.append([entry(2)])
    for _ in range(2):
        with pytest.raises(AuditBrokenError, match=r"RECORDS-LOST\.txt"):
            new_audit_log(directory)
    assert segment.name in (directory / "RECORDS-LOST.txt").read_text()
    (directory / "RECORDS-LOST.txt").unlink()
    with closing(new_audit_log(directory)) as log:
        log.append([entry(3)])
    assert [record["transaction_id"] for record in records(directory)] == ["TXN-1", "TXN-3"]
    assert verify_directory(directory).ok


def test_a_file_taken_away_during_a_commit_acknowledges_nobody(tmp_path: Path) -> None:
    """A record that was synced into a file without a name is not durable for anybody who looks for it."""
    disk = Disk()
    with closing(new_audit_log(tmp_path, fsync=disk.fsync)) as log:
        log.append([entry(1)])
        sync = disk.fsync

        def take_away(descriptor: int) -> None:
            sync(descriptor)
            only_segment(tmp_path).unlink()

        log._chain._fsync = take_away  # noqa: SLF001 - the moment between the write and the answer
        with pytest.raises(AuditUnavailableError, match="is gone"):
            log.append([entry(2)])


def test_a_whole_copy_is_as_good_as_the_file(tmp_path: Path) -> None:
    """A segment that was replaced by a copy with all of it refuses one commit and carries on in the copy."""
    with closing(new_audit_log(tmp_path)) as log:
        log.append([entry(1)])
        segment = only_segment(tmp_path)
        copy = shutil.copy(segment, tmp_path / "copy")
        Path(copy).rename(segment)
        with pytest.raises(AuditUnavailableError, match="is not the file"):
            log.append([entry(2)])
        log.append([entry(3)])
        assert log.healthy
    assert [record["transaction_id"] for record in records(tmp_path)] == ["TXN-1", "TXN-3"]
    assert verify_directory(tmp_path).ok


def test_bytes_of_another_writer_are_not_built_upon(tmp_path: Path) -> None:
    """Foreign bytes behind the last record are noticed before the next write, and moved aside."""
    with closing(new_audit_log(tmp_path)) as log:
        log.append([entry(1)])
        append_bytes(only_segment(tmp_path), b"foreign")
        with pytest.raises(AuditUnavailableError, match="is not the file"):
            log.append([entry(2)])
        log.append([entry(3)])
    assert [copy.read_bytes() for copy in torn_files(tmp_path)] == [b"foreign"]
    assert verify_directory(tmp_path).ok


@pytest.mark.parametrize("again", [False, True], ids=["removed", "made anew"])
def test_a_loss_between_two_segments_is_seen(tmp_path: Path, again: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """When the next record begins a segment, the one before must still be there."""
    directory = tmp_path / "audit"
    chain = chain_directory(directory, segment_bytes=1)
    chain.open()
    chain.append([ENTRY])
    shutil.rmtree(directory)
    if again:
        directory.mkdir()
    with pytest.raises(AuditUnavailableError):
        chain.append([ENTRY])
    with pytest.raises(AuditBrokenError, match="are gone"):
        chain.append([ENTRY])
    chain.close()
    assert list(directory.glob("*.jsonl")) == []


def test_a_segment_that_could_not_be_begun_still_needs_the_one_before(tmp_path: Path) -> None:
    """A failed write of a segment's first record is made good only over the record before it."""
    directory, disk = tmp_path / "audit", Disk()
    chain = chain_directory(directory, segment_bytes=1, fsync=disk.fsync)
    chain.open()
    chain.append([ENTRY])
    disk.fail_at = {len(disk.synced) + 1}
    with pytest.raises(AuditUnavailableError):
        chain.append([ENTRY])
    remove_and_make_anew(directory)
    with pytest.raises(AuditBrokenError, match="are gone"):
        chain.append([ENTRY])
    chain.close()


def test_a_loss_between_start_and_first_record_is_seen(tmp_path: Path) -> None:
    """What was found at the start must be there when the first record is written."""
    written(tmp_path)
    with closing(new_audit_log(tmp_path)) as log:
        only_segment(tmp_path).unlink()
        with pytest.raises(AuditUnavailableError, match="are gone"):
            log.append([entry(4)])
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_segment_that_goes_while_it_is_looked_at_is_not_made_anew(tmp_path: Path) -> None:
    """Only a segment without records is ever created."""
    written(tmp_path)

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and opened:
            only_segment(tmp_path).unlink()

    opened = False
    with closing(new_audit_log(tmp_path, fsync=sync)) as log:
        opened = True
        with pytest.raises(AuditUnavailableError, match="No such file"):
            log.append([entry(4)])
    assert list(tmp_path.glob("*.jsonl")) == []


def test_a_chain_is_new_until_it_has_a_record(tmp_path: Path) -> None:
    """A directory that was opened and never written to is new still, also when it holds torn bytes; else it is not."""
    for torn in (None, b'{"v":1', None):
        if torn:
            (tmp_path / "audit-0000000000000001.jsonl").write_bytes(torn)
        with closing(new_audit_log(tmp_path)) as log:
            assert log.is_new
    assert records(tmp_path) == []
    with closing(new_audit_log(tmp_path)) as log:
        log.append([entry(1)])
        assert log.is_new
    assert [record["operation"] for record in records(tmp_path)] == ["audit.repair", "sign"]
    with closing(new_audit_log(tmp_path)) as log:
        assert not log.is_new
    assert verify_directory(tmp_path).ok
