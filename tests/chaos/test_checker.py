"""The checker finds nothing where all is well, and each thing that must never happen where somebody lets it happen."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checker import check, outbound_duplicates
from tests.chaos.doctored import Bench, chained, copy_of, private_key, sign
from tests.chaos.evidence import Copy, Evidence, SetAside
from tests.chaos.signed import canonical

Doctor = Callable[[Bench], Evidence]


def test_a_run_without_fault_has_no_violations() -> None:
    """Batches of every kind, all as they should be; the copy of one that was sent twice is counted."""
    evidence = Bench().run()
    assert check(evidence) == []
    assert outbound_duplicates(evidence) == 1


def test_the_checker_shares_no_code_with_the_service() -> None:
    """Whoever loads it has loaded nothing of the service."""
    program = "import sys, tests.chaos.checker; print([name for name in sys.modules if name.startswith('signer')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_is_signed_is_written_as_rfc_8785_says() -> None:
    """Members in order, no spaces, escapes only where they must be."""
    message = {"ü": 'a"\\/\n€', "b": [1, None, True], "a": {}}
    assert canonical({"message": message}) == '{"a":{},"b":[1,null,true],"ü":"a\\"\\\\/\\n€"}'.encode()


def document_of(evidence: Evidence, index: int = 0) -> dict[str, Any]:
    """Read a batch that came out."""
    document: dict[str, Any] = json.loads(evidence.out[index].body)
    return document


def with_copy(evidence: Evidence, document: dict[str, Any], index: int = 0) -> Evidence:
    """Put another body in the place of a copy."""
    copies = list(evidence.out)
    copies[index] = copy_of(document, index, copies[index].group)
    return replace(evidence, out=copies)


def lose_a_batch(bench: Bench) -> Evidence:
    evidence = bench.run()
    return replace(evidence, out=evidence.out[1:])


def lose_both_rivals(bench: Bench) -> Evidence:
    evidence = bench.run()
    rivals = [sent.batch_id for sent in evidence.sent if sent.kind == "rival"]
    return replace(evidence, out=[copy for copy in evidence.out if copy.attributes["batch_id"] not in rivals])


def release_both_rivals(bench: Bench) -> Evidence:
    evidence = bench.run()
    loser = next(sent for sent in reversed(evidence.sent) if sent.kind == "rival")
    evidence.out.append(bench.release(loser))
    return replace(evidence, audit={"audit-1": chained(bench.records)})


def release_a_bad_batch(bench: Bench) -> Evidence:
    evidence = bench.run()
    bad = next(sent for sent in evidence.sent if sent.kind == "conflict" and sent.expect == "quarantine")
    return replace(evidence, out=[*evidence.out, Copy(bad.body, {"batch_id": bad.batch_id}, 0)])


def sign_a_copy_again(bench: Bench) -> Evidence:
    evidence = bench.run()
    twice = next(index for index, copy in enumerate(evidence.out) if evidence.out[index + 1].body == copy.body)
    document = document_of(evidence, twice)
    first = document["transactions"][0]
    bare = {name: value for name, value in first.items() if name != "signature"}
    first["signature"] = sign(bare, document["algorithm"], first["signature"]["audit_id"]) | {"signed_at": "later"}
    return with_copy(evidence, document, twice)


def spoil_a_signature(bench: Bench) -> Evidence:
    evidence = bench.run()
    document = document_of(evidence)
    signature = document["transactions"][0]["signature"]
    signature["value"] = signature["value"].translate({ord("A"): "B", ord("B"): "A", ord("x"): "y", ord("y"): "x"})
    return with_copy(evidence, document)


def change_a_digest(bench: Bench) -> Evidence:
    evidence = bench.run()
    document = document_of(evidence)
    other = sign({"message": {}}, document["algorithm"], "")["digest"]
    document["transactions"][0]["signature"]["digest"] = other
    return with_copy(evidence, document)


def leave_a_signature_out(bench: Bench) -> Evidence:
    evidence = bench.run()
    document = document_of(evidence)
    document["transactions"][0]["signature"] = None
    copy = copy_of(document, 0)
    return replace(evidence, out=[copy, *evidence.out[1:]])


def change_the_content(bench: Bench) -> Evidence:
    evidence = bench.run()
    document = document_of(evidence)
    document["transactions"][0]["payload"] = "AAAA"
    return with_copy(evidence, document)


def change_a_type(bench: Bench) -> Evidence:
    evidence = bench.run()
    index = next(
        index for index, _ in enumerate(evidence.out) if "message" in document_of(evidence, index)["transactions"][0]
    )
    document = document_of(evidence, index)
    document["transactions"][0]["message"]["items"][2] = 1
    return with_copy(evidence, document, index)


def mislabel(bench: Bench) -> Evidence:
    evidence = bench.run()
    attributes = {**evidence.out[0].attributes, "content_sha256": "0" * 64}
    return replace(evidence, out=[replace(evidence.out[0], attributes=attributes), *evidence.out[1:]])


def sign_another_content(bench: Bench) -> Evidence:
    bench.run()
    bench.records.append({**bench.records[0], "digest": "sha256:" + "0" * 64, "outcome": "replayed"})
    return replace(bench.evidence, audit={"audit-1": chained(bench.records)})


def bind_another_content(bench: Bench) -> Evidence:
    evidence = bench.run()
    return replace(evidence, ledger=[replace(evidence.ledger[0], digest="0" * 64), *evidence.ledger[1:]])


def leave_a_record_out(bench: Bench) -> Evidence:
    bench.run()
    return replace(bench.evidence, audit={"audit-1": chained(bench.records[:-1])})


def record_another_signature(bench: Bench) -> Evidence:
    bench.run()
    bench.records[0] = {**bench.records[0], "signature_sha256": "sha256:" + "0" * 64}
    return replace(bench.evidence, audit={"audit-1": chained(bench.records)})


def audit_line(change: Callable[[list[bytes]], object]) -> Doctor:
    def doctor(bench: Bench) -> Evidence:
        evidence = bench.run()
        lines = list(evidence.audit["audit-1"])
        change(lines)
        return replace(evidence, audit={"audit-1": lines})

    return doctor


def keep_another_signature(bench: Bench) -> Evidence:
    evidence = bench.run()
    row = replace(evidence.ledger[0], signature={**(evidence.ledger[0].signature or {}), "audit_id": "another"})
    return replace(evidence, ledger=[row, *evidence.ledger[1:]])


def keep_no_signature(bench: Bench) -> Evidence:
    evidence = bench.run()
    return replace(evidence, ledger=[replace(evidence.ledger[0], signature=None), *evidence.ledger[1:]])


def lose_a_bad_batch(bench: Bench) -> Evidence:
    evidence = bench.run()
    return replace(evidence, set_aside=evidence.set_aside[1:])


def give_another_reason(bench: Bench) -> Evidence:
    evidence = bench.run()
    first = replace(evidence.set_aside[0], reasons={"code": "invalid_input"})
    return replace(evidence, set_aside=[first, *evidence.set_aside[1:]])


def change_what_is_set_aside(bench: Bench) -> Evidence:
    evidence = bench.run()
    first = replace(evidence.set_aside[0], body=evidence.set_aside[0].body + " ")
    return replace(evidence, set_aside=[first, *evidence.set_aside[1:]])


def set_a_good_batch_aside(bench: Bench) -> Evidence:
    evidence = bench.run()
    return replace(evidence, set_aside=[*evidence.set_aside, SetAside(evidence.sent[0].body, {"code": "unavailable"})])


def leave_a_message(bench: Bench) -> Evidence:
    return replace(bench.run(), left={"dead-letter": 1})


def come_twice_through_fifo(bench: Bench) -> Evidence:
    return replace(bench.run(), fifo=True)


@pytest.mark.parametrize(
    ("doctor", "rule"),
    [
        (lose_a_batch, "lost"),
        (lose_both_rivals, "lost"),
        (release_both_rivals, "two_digests"),
        (release_a_bad_batch, "uninvited"),
        (sign_a_copy_again, "copies_differ"),
        (spoil_a_signature, "wrong"),
        (change_a_digest, "wrong"),
        (change_a_digest, "two_digests"),
        (leave_a_signature_out, "wrong"),
        (change_the_content, "wrong"),
        (change_a_type, "wrong"),
        (mislabel, "wrong"),
        (sign_another_content, "two_digests"),
        (bind_another_content, "two_digests"),
        (leave_a_record_out, "unaudited"),
        (record_another_signature, "unaudited"),
        (audit_line(lambda lines: lines.pop(3)), "chain_broken"),
        (audit_line(lambda lines: lines.insert(3, lines[3])), "chain_broken"),
        (audit_line(lambda lines: lines.append(lines.pop()[:-1])), "chain_broken"),
        (audit_line(lambda lines: lines.append(b'{"half a rec')), "chain_broken"),
        (audit_line(lambda lines: lines.append(lines.pop().replace(b"settlement", b"settlemenT"))), "chain_broken"),
        (audit_line(lambda lines: lines.clear()), "chain_broken"),
        (keep_another_signature, "not_kept"),
        (keep_no_signature, "not_kept"),
        (lose_a_bad_batch, "not_set_aside"),
        (give_another_reason, "not_set_aside"),
        (change_what_is_set_aside, "not_set_aside"),
        (set_a_good_batch_aside, "not_set_aside"),
        (leave_a_message, "left_behind"),
        (come_twice_through_fifo, "doubled"),
    ],
)
def test_each_violation_is_found(doctor: Doctor, rule: str) -> None:
    """What must never happen is found by the rule against it."""
    assert rule in {violation.rule for violation in check(doctor(Bench()))}


def test_a_copy_beyond_the_window_is_no_violation_of_a_fifo_queue() -> None:
    """The queue forgets after five minutes; such a copy is counted all the same."""
    evidence = Bench().run()
    late = [replace(copy, sent_at_ms=copy.sent_at_ms * 300_000) for copy in evidence.out]
    assert [violation.rule for violation in check(replace(evidence, out=late, fifo=True))] == []
    assert outbound_duplicates(evidence) == 1


def test_a_group_that_lost_its_order_is_found() -> None:
    """Two batches of one group went out the other way round."""
    evidence = Bench().run()
    sent = [replace(each, group="G") for each in evidence.sent]
    once = {copy.body: replace(copy, group="G") for copy in evidence.out}
    first, second, *others = once.values()
    swapped = [replace(first, sent_at_ms=second.sent_at_ms), replace(second, sent_at_ms=first.sent_at_ms), *others]
    in_order = replace(evidence, sent=sent, out=list(once.values()), fifo=True)
    assert check(in_order) == []
    assert {violation.rule for violation in check(replace(in_order, out=swapped))} == {"disordered"}


def test_a_signature_of_another_key_is_wrong() -> None:
    """The key is the one that was published at the start, whatever the signature says."""
    evidence = Bench().run()
    private_key.cache_clear()
    other = Bench().evidence.public_key_pem
    assert "wrong" in {violation.rule for violation in check(replace(evidence, public_key_pem=other))}
