"""The chain shows every change and names its line: any byte, any record dropped, moved, doubled or replaced."""

import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.audit.chain import MAX_LINE_BYTES, Fault, Head, encode, link
from signer.audit.verification import Line, Verification, verify
from signer.errors import AuditUnavailableError
from signer.ports import AuditEntry
from tests.unit.stores import entry

Tamper = Callable[[bytes], bytes]

CHAIN = "0123456789ab"


def chain_of(some: Sequence[AuditEntry], head: Head | None = None) -> list[bytes]:
    """The lines of a chain."""
    head = head or Head(CHAIN)
    lines = []
    for one in some:
        line, head = link(head, encode(one))
        lines.append(line)
    return lines


texts = st.none() | st.text(st.characters(exclude_categories=()), max_size=20)
entries = st.builds(
    AuditEntry,
    time=st.just("2028-03-08T12:00:00.123456Z"),
    operation=st.sampled_from(["sign", "probe", "audit.repair"]),
    outcome=st.sampled_from(["signed", "refused"]),
    caller=texts,
    transaction_id=texts,
    key_handle=st.none() | st.integers(0, 2**64 - 1),
    duration_s=st.none() | st.floats(0, 1e6),
    detail=texts,
)
chains = st.lists(entries, min_size=2, max_size=8).map(chain_of)


def numbered(count: int) -> list[bytes]:
    return chain_of([entry(number) for number in range(count)])


def check(lines: Sequence[bytes], anchors: dict[int, str] | None = None) -> Verification:
    """Verify `lines` as they would be read from one file."""
    file = io.BytesIO(b"".join(lines))
    return verify((Line("segment", number, data) for number, data in enumerate(file, start=1)), anchors or {})


def problem_of(lines: Sequence[bytes], anchors: dict[int, str] | None = None) -> tuple[Fault, int, int]:
    """What is wrong, in which line, and which record should stand there."""
    problem = check(lines, anchors).problem
    assert problem is not None
    return problem.kind, problem.line, problem.seq


def hash_of(line: bytes) -> str:
    digest = json.loads(line)["hash"]
    assert isinstance(digest, str)
    return digest


def sealed(content: bytes) -> bytes:
    """A line with the right hash over whatever stands before it."""
    digest = hashlib.sha256(content + b"}").hexdigest()
    return content + b',"hash":"' + digest.encode() + b'"}\n'


@given(chains)
def test_a_chain_that_was_left_alone_is_whole(lines: list[bytes]) -> None:
    """Whatever text the records hold, the chain verifies, and its head and its repairs are told."""
    result = check(lines)
    assert result.problem is None
    assert result.ok
    assert (result.chain, result.records, result.head_hash) == (CHAIN, len(lines), hash_of(lines[-1]))
    assert len(result.repairs) == sum(b'"operation":"audit.repair"' in line for line in lines)


@given(chains)
def test_an_auditor_needs_ten_lines_of_code(lines: list[bytes]) -> None:
    """The recipe of the module's documentation, which uses nothing of ours, follows the chain to its head."""
    prev = "0" * 64
    for seq, line in enumerate(lines, start=1):
        content, digest = line[:-76] + b"}", line[-67:-3].decode()
        assert hashlib.sha256(content).hexdigest() == digest
        assert json.loads(content)["prev"] == prev
        assert json.loads(content)["seq"] == seq
        prev = digest
    assert prev == check(lines).head_hash


@given(chains, st.data())
def test_any_changed_byte_is_found_in_its_line(lines: list[bytes], data: st.DataObject) -> None:
    """Exchange one byte anywhere for another: the first problem is in that very line."""
    content = bytearray(b"".join(lines))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    line = b"".join(lines)[:position].count(b"\n") + 1
    kind, found, seq = problem_of([bytes(content)])
    assert (found, seq) == (line, line)
    assert kind in {Fault.ALTERED, Fault.BROKEN, Fault.TORN}


@given(chains, st.data())
def test_any_dropped_line_is_missing(lines: list[bytes], data: st.DataObject) -> None:
    """Take one line out: its record is missing, at its place; the last one is missed by an anchor."""
    index = data.draw(st.integers(0, len(lines) - 1))
    anchors = {len(lines): hash_of(lines[-1])}
    rest = lines[:index] + lines[index + 1 :]
    assert problem_of(rest, anchors) == (Fault.MISSING, index + 1, index + 1)


@given(chains, st.data())
def test_any_two_swapped_lines_are_reordered(lines: list[bytes], data: st.DataObject) -> None:
    """Swap two lines: the first of the two places is named as reordered."""
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    assert problem_of(lines) == (Fault.REORDERED, first + 1, first + 1)


@given(chains, st.data())
def test_any_doubled_line_is_a_duplicate(lines: list[bytes], data: st.DataObject) -> None:
    """Put a copy of a line anywhere behind it: the copy is named."""
    index = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(index + 1, len(lines)))
    lines.insert(place, lines[index])
    assert problem_of(lines) == (Fault.DUPLICATE, place + 1, place + 1)


def test_a_gap_names_every_record_that_is_gone() -> None:
    """Several records dropped in a row are named from the first to the last."""
    problem = check(numbered(9)[:3] + numbered(9)[7:]).problem
    assert problem is not None
    assert problem.message == "records 4 to 7 are missing: record 8 stands here"


def test_a_record_replaced_with_the_right_hash_breaks_the_chain_behind_it() -> None:
    """Who rewrites a record and computes its hash anew is found by the next record, or by an anchor."""
    lines = numbered(5)
    before = Head(CHAIN, 2, hash_of(lines[1]))
    (forged,) = chain_of([replace(entry(2), outcome="refused")], before)
    assert problem_of([*lines[:2], forged, *lines[3:]]) == (Fault.FORKED, 4, 4)
    assert problem_of([*lines[:2], forged], {3: hash_of(lines[2])}) == (Fault.ALTERED, 3, 3)


def test_a_tail_that_was_cut_off_is_missed_by_an_anchor() -> None:
    """A shorter chain is whole in itself; an anchor noted earlier shows what is gone."""
    lines = numbered(5)
    assert check(lines[:3]).ok
    assert problem_of(lines[:3], {5: hash_of(lines[4])}) == (Fault.MISSING, 4, 4)
    assert check(lines, {2: hash_of(lines[1]), 5: hash_of(lines[4])}).ok


def test_a_line_of_another_chain_is_foreign() -> None:
    """A sound record of another service does not pass, even with the right number."""
    lines = numbered(3)
    other = chain_of([entry(0)] * 3, Head("ba9876543210"))
    assert problem_of([*lines[:2], other[2]]) == (Fault.FOREIGN, 3, 3)


def test_a_chain_begins_at_its_beginning() -> None:
    """Nothing at all is not a chain, and neither is one whose first record builds on another."""
    assert problem_of([]) == (Fault.MISSING, 1, 1)
    assert problem_of(chain_of([entry(0)], Head(CHAIN, 0, "a" * 64))) == (Fault.FORKED, 1, 1)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda content: content.replace(b'"seq":1,', b'"seq": 1,'),
        lambda content: content.replace(b'"seq":1,', b'"seq":1.0,'),
        lambda content: content.replace(b'"v":1,', b'"v":2,'),
        lambda content: content.replace(b'"outcome"', b'"detail":"twice","outcome"') + b',"detail":"last wins"',
        lambda content: content.replace(b"-0000000000000001", b"-0000000000000002"),
        lambda content: content.replace(b'"TXN-0"', b'"TXN\\u002d0"'),
        lambda content: content.replace(b"0.001234", b"NaN"),
        lambda content: content + b',"deep":' + b"[" * 100_000 + b"]" * 100_000,
        lambda content: content + b" ",
    ],
    ids=["space", "float", "version", "twice", "audit id", "escape", "NaN", "deep", "trailing"],
)
def test_a_record_in_another_form_is_refused_even_with_the_right_hash(tamper: Tamper) -> None:
    """There is one way to write a record; two readers could understand anything else in two ways."""
    (line,) = numbered(1)
    assert check([sealed(line[:-76])]).ok
    assert problem_of([sealed(tamper(line[:-76]))]) == (Fault.BROKEN, 1, 1)


@pytest.mark.parametrize("end", [b"}\n \n", b"}\r\n", b"} \n", b"}\n\n"])
def test_nothing_may_stand_around_a_record(end: bytes) -> None:
    """White space behind a record, or an empty line, is found."""
    (line,) = numbered(1)
    kind, _, _ = problem_of([line[:-2] + end])
    assert kind is Fault.BROKEN


def test_an_unfinished_last_line_is_torn_and_one_in_the_middle_is_broken() -> None:
    """The trace of a crash is told from damage: it can only be at the very end."""
    lines = numbered(3)
    assert problem_of([*lines[:2], lines[2][:40]]) == (Fault.TORN, 3, 3)
    segments = [Line("a", 1, lines[0]), Line("a", 2, lines[1][:-1]), Line("b", 1, lines[2])]
    problem = verify(segments).problem
    assert problem is not None
    assert (problem.kind, problem.file, problem.line) == (Fault.BROKEN, "a", 2)


def test_a_record_has_its_members_in_the_order_of_their_declaration() -> None:
    """An entry with every field set gives every field, in order; one without a value leaves it out."""
    names = [field.name for field in fields(AuditEntry)]
    (full,) = chain_of([AuditEntry(*names)])  # type: ignore[arg-type]
    assert list(json.loads(full)) == ["v", "chain", "seq", "audit_id", "prev", *names, "hash"]
    assert "detail" not in json.loads(numbered(1)[0])


def test_a_record_without_end_is_never_written() -> None:
    """A record that no reader would take is refused before it comes into the chain."""
    with pytest.raises(AuditUnavailableError, match="larger than"):
        encode(entry(0, detail="x" * MAX_LINE_BYTES))
    assert check(chain_of([entry(0, detail="x" * (MAX_LINE_BYTES - 2048))])).ok


def test_verification_does_not_keep_what_it_read() -> None:
    """Five thousand records of a kilobyte each are verified in a fraction of their size."""

    def endless() -> Iterator[Line]:
        head = Head(CHAIN)
        for number in range(5000):
            line, head = link(head, encode(entry(number, detail="x" * 1000)))
            yield Line("segment", number + 1, line)

    tracemalloc.start()
    assert verify(endless()).records == 5000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 500_000
