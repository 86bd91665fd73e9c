"""The chain across segments: written on and on, and verified as a whole."""

import json
from pathlib import Path

import pytest

from signer.audit.chain import Fault
from signer.audit.verification import verify_directory
from signer.errors import InvalidInputError
from tests.unit.stores import (
    append_bytes,
    chain_directory,
    new_audit_log,
    torn_files,
    written,
)


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
