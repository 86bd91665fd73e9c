"""Proves what a run has left behind, with `cryptography` and nothing of ours: what it finds are violations.

Out: every good batch, all its copies alike, with signatures over what was sent, each on record and kept in the ledger.
Set aside: every bad batch, for its reason. Nothing was signed over two contents; no queue holds anything back.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tests.chaos import signed
from tests.chaos.evidence import Copy, Evidence, Sent
from tests.chaos.records import broken_chain, signed_records

_WINDOW_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, and did."""

    rule: str
    what: str
    """The batch, transaction or place that it happened to."""
    detail: str


Rule = Callable[[Evidence], Iterator[Violation]]


def check(evidence: Evidence) -> list[Violation]:
    """Find every violation."""
    return [violation for rule in RULES for violation in rule(evidence)]


def outbound_duplicates(evidence: Evidence) -> int:
    """Count the copies beyond the first of each batch."""
    return len(evidence.out) - len(copies_of(evidence))


def copies_of(evidence: Evidence) -> dict[str, list[Copy]]:
    """Give what came out, by batch, in the order of the queue."""
    copies: dict[str, list[Copy]] = defaultdict(list)
    for copy in sorted(evidence.out, key=lambda copy: (copy.sent_at_ms, copy.sequence)):
        copies[signed.batch_id_of(copy.body)].append(copy)
    return copies


def lost(evidence: Evidence) -> Iterator[Violation]:
    """Every good batch is out; of two that exclude each other, one."""
    copies = copies_of(evidence)
    for sent in _each(evidence):
        if sent.expect == "out" and sent.batch_id not in copies:
            yield Violation("lost", sent.batch_id, f"{sent.kind}: sent, and never came out")
    for pair, rivals in _pairs(evidence).items():
        out = [rival.batch_id for rival in rivals if rival.batch_id in copies]
        if not out:
            yield Violation("lost", pair, "neither of the two came out")
        if len(out) > 1:
            yield Violation("two_digests", pair, "both came out, over two contents of one transaction")


def uninvited(evidence: Evidence) -> Iterator[Violation]:
    """Nothing comes out that was not sent, or that can never be signed."""
    may = {sent.batch_id for sent in evidence.sent if sent.expect != "quarantine"}
    for batch_id in copies_of(evidence).keys() - may:
        yield Violation("uninvited", batch_id, "came out, and must not")


def copies_differ(evidence: Evidence) -> Iterator[Violation]:
    """All copies of a batch are the same to the last byte."""
    for batch_id, copies in copies_of(evidence).items():
        if len({copy.body for copy in copies}) > 1:
            yield Violation("copies_differ", batch_id, f"{len(copies)} copies, and not one body")


def wrong(evidence: Evidence) -> Iterator[Violation]:
    """What came out is what was sent, in its order, and every signature is the key's over it."""
    sent = {each.batch_id: each for each in _each(evidence)}
    key = signed.read_key(evidence.public_key_pem)
    for batch_id, copies in copies_of(evidence).items():
        # Every copy: those that differ are wrong each in its own way.
        for copy in {copy.body: copy for copy in copies}.values():
            if batch_id in sent and sent[batch_id].expect != "quarantine":
                for problem in signed.problems(copy, sent[batch_id].body, key):
                    yield Violation("wrong", batch_id, problem)


def two_digests(evidence: Evidence) -> Iterator[Violation]:
    """No transaction was signed over two contents, whoever tells of it: outbound, ledger or audit logs."""
    digests: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in evidence.ledger:
        digests[row.key_alias, row.transaction_id].add(row.digest)
    for record in signed_records(evidence):
        digests[record["key_alias"], record["transaction_id"]].add(record["digest"].removeprefix("sha256:"))
    for copy in evidence.out:
        for transaction_id, signature in signed.signatures_of(copy.body):
            digests[signature["key_alias"], transaction_id].add(signed.hex_of(signature["digest"]))
    for (key_alias, transaction_id), found in digests.items():
        if len(found) > 1:
            yield Violation("two_digests", f"{key_alias}/{transaction_id}", f"bound to or signed over {sorted(found)}")


def unaudited(evidence: Evidence) -> Iterator[Violation]:
    """Every signature that came out has its record: this transaction, this digest, this very signature."""
    records = {
        (record["audit_id"], record["transaction_id"], record["digest"], record["signature_sha256"])
        for record in signed_records(evidence)
        if record["outcome"] == "signed"
    }
    for copy in evidence.out:
        for transaction_id, signature in signed.signatures_of(copy.body):
            digest = f"sha256:{signed.hex_of(signature['digest'])}"
            record = (signature["audit_id"], transaction_id, digest, signed.sha256_of(signature["value"]))
            if record not in records:
                yield Violation("unaudited", transaction_id, f"no record {signature['audit_id']} of this signature")


def chain_broken(evidence: Evidence) -> Iterator[Violation]:
    """Every audit log is one whole chain."""
    for name, lines in evidence.audit.items():
        problem = broken_chain(lines)
        if problem is not None:
            yield Violation("chain_broken", name, problem)


def not_kept(evidence: Evidence) -> Iterator[Violation]:
    """The ledger keeps each signature as it came out, word for word."""
    kept = {(row.key_alias, row.transaction_id): row.signature for row in evidence.ledger}
    for copy in evidence.out:
        for transaction_id, signature in signed.signatures_of(copy.body):
            if kept.get((signature["key_alias"], transaction_id)) != signature:
                yield Violation("not_kept", transaction_id, "the ledger does not keep the signature that came out")


def not_set_aside(evidence: Evidence) -> Iterator[Violation]:
    """Every bad batch is in quarantine as it was sent, for its reason; nothing else is."""
    codes: dict[str, set[str]] = defaultdict(set)
    for each in evidence.set_aside:
        codes[each.body].add(str(each.reasons.get("code", "")))
    out = copies_of(evidence)
    for sent in _each(evidence):
        expected = {sent.code} if sent.expect == "quarantine" else set()
        if sent.expect == "either" and sent.batch_id not in out:
            expected = {"transaction_conflict"}
        if codes.pop(sent.body, set()) != expected:
            yield Violation(
                "not_set_aside", sent.batch_id, f"{sent.kind}: must be in quarantine for {expected or None}"
            )
    for body in codes:
        yield Violation("not_set_aside", body[:40], "in quarantine, and was never sent so")


def left_behind(evidence: Evidence) -> Iterator[Violation]:
    """No queue holds anything back."""
    for name, count in evidence.left.items():
        if count:
            yield Violation("left_behind", name, f"{count} messages")


def doubled(evidence: Evidence) -> Iterator[Violation]:
    """A FIFO queue gives no batch twice within its window, and keeps the order of each group."""
    if not evidence.fifo:
        return
    for batch_id, copies in copies_of(evidence).items():
        if any(later.sent_at_ms - copy.sent_at_ms < _WINDOW_MS for copy, later in pairwise(copies)):
            yield Violation("doubled", batch_id, f"{len(copies)} copies, some within the window")
    first: dict[str, list[str]] = defaultdict(list)
    for batch_id, copies in copies_of(evidence).items():
        first[copies[0].group].append(batch_id)
    for group, order in first.items():
        came_in = [sent.batch_id for sent in _each(evidence) if sent.group == group and sent.batch_id in set(order)]
        if came_in != order:
            yield Violation("disordered", group, f"came in as {came_in}, went out as {order}")


RULES: Final[Sequence[Rule]] = (
    lost, uninvited, copies_differ, wrong, two_digests, unaudited, chain_broken, not_kept, not_set_aside, left_behind,
    doubled,
)  # fmt: skip


def _each(evidence: Evidence) -> Iterator[Sent]:
    """Give each batch once, however often it was sent."""
    return iter({sent.batch_id: sent for sent in evidence.sent}.values())


def _pairs(evidence: Evidence) -> dict[str, list[Sent]]:
    pairs: dict[str, list[Sent]] = defaultdict(list)
    for sent in _each(evidence):
        if sent.expect == "either":
            pairs[sent.pair].append(sent)
    return pairs
