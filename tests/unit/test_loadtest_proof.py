"""What a load must have before its figure counts: each guard of `loadtest.proof`."""

import base64
import hashlib
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from loadtest.messages import Book, Page
from loadtest.proof import NotProvenError, Proof
from signer.ledger.sqlite import SqliteLedger
from signer.ports import AuditEntry, Claim, Claimed, Signature
from signer.settings import LedgerSettings
from signer.signatures import DEFAULT_ALGORITHM, public_key_pem
from tests.unit.stores import new_audit_log, new_metrics

KEY = rsa.generate_private_key(65537, 2048)
Sent = tuple[str, Page]


def sign(page: Page) -> bytes:
    return KEY.sign(page.digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def record(directory: Path, audited: Sequence[Sent], kept: Sequence[Sent]) -> dict[str, Signature]:
    """Write what a service would, into a real audit log and a real ledger; gives what it would release."""
    released: dict[str, Signature] = {}
    with closing(new_audit_log(directory / "audit")) as audit:
        for name, page in audited:
            value = sign(page)
            named = "sha256:" + hashlib.sha256(value).hexdigest()
            entry = AuditEntry("2028-03-08T12:00:00Z", "sign", "signed", transaction_id=name, signature_sha256=named)
            (audit_id,) = audit.append([entry])
            digest, text = (base64.b64encode(octets).decode() for octets in (page.digest, value))
            released[name] = Signature(
                DEFAULT_ALGORITHM.name, "settlement", "label", "sha256:", digest, text, "", audit_id
            )
    path = directory / "ledger.sqlite3"
    with closing(SqliteLedger(path, LedgerSettings(path=path), new_metrics(), time.time)) as ledger:
        claims = [Claim("settlement", name, page.digest, DEFAULT_ALGORITHM.name) for name, page in kept]
        answers = [answer for answer in ledger.claim(claims) if isinstance(answer, Claimed)]
        ledger.complete([(answer, released[answer.claim.transaction_id]) for answer in answers])
    return released


def prove(directory: Path, sent: Sequence[Sent], released: dict[str, Signature], came: Sequence[Sent]) -> int:
    proof = Proof(public_key_pem(KEY.public_key()))
    for name, page in sent:
        proof.send(name, page.digest)
    for name, _ in came:
        proof.receive(name, released[name].to_message())
    return proof.check([directory / "audit"], [directory / "ledger.sqlite3"])


@pytest.fixture
def sent() -> list[Sent]:
    book = Book(200, 2)
    return [book.take("T") for _ in range(3)]


def test_what_was_signed_audited_and_kept_counts(tmp_path: Path, sent: list[Sent]) -> None:
    """As many as were sent."""
    assert prove(tmp_path, sent, record(tmp_path, sent, sent), sent) == 3


def test_one_that_did_not_come_back_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """Whatever was recorded."""
    with pytest.raises(NotProvenError, match="1 of 3"):
        prove(tmp_path, sent, record(tmp_path, sent, sent), sent[:2])


def test_one_that_was_not_audited_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """It came back, and the ledger has it."""
    released = record(tmp_path, sent, sent)
    elsewhere = tmp_path / "elsewhere"
    record(elsewhere, sent[:2], [])
    proof = Proof(public_key_pem(KEY.public_key()))
    for name, page in sent:
        proof.send(name, page.digest)
        proof.receive(name, released[name].to_message())
    with pytest.raises(NotProvenError, match="audit log has 2"):
        proof.check([elsewhere / "audit"], [tmp_path / "ledger.sqlite3"])


def test_one_that_was_not_kept_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """It came back, and was audited."""
    with pytest.raises(NotProvenError, match="ledger has 2"):
        prove(tmp_path, sent, record(tmp_path, sent, sent[:2]), sent)


def test_more_than_was_asked_for_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """The audit log knows of a signature that nobody received."""
    with pytest.raises(NotProvenError, match="audit log has 3"):
        prove(tmp_path, sent[:2], record(tmp_path, sent, sent[:2]), sent[:2])


def test_a_changed_audit_log_proves_nothing(tmp_path: Path, sent: list[Sent]) -> None:
    """One digit, and the chain is not whole."""
    released = record(tmp_path, sent, sent)
    (segment,) = (tmp_path / "audit").glob("audit-*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"T-1", b"T-7"))
    with pytest.raises(NotProvenError, match="not whole"):
        prove(tmp_path, sent, released, sent)


def test_a_signature_over_something_else_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """Nor one that is claimed to be over what was sent."""
    released = record(tmp_path, sent, sent)
    right, other = released["T-0"].to_message(), released["T-1"].to_message()
    for wrong in (other, right | {"value": other["value"]}):
        proof = Proof(public_key_pem(KEY.public_key()))
        proof.send("T-0", sent[0][1].digest)
        with pytest.raises(NotProvenError, match="T-0"):
            proof.receive("T-0", wrong)


def test_nothing_counts_twice(tmp_path: Path, sent: list[Sent]) -> None:
    """A copy of an answer is not another signature."""
    with pytest.raises(NotProvenError, match="twice"):
        prove(tmp_path, sent, record(tmp_path, sent, sent), [*sent, sent[0]])


def test_one_that_was_audited_twice_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """Two records of one transaction are two signatures, though a mapping by its id would have one."""
    released = record(tmp_path, sent, sent)
    again = tmp_path / "again"
    record(again, sent[:1], [])
    proof = Proof(public_key_pem(KEY.public_key()))
    for name, page in sent:
        proof.send(name, page.digest)
        proof.receive(name, released[name].to_message())
    with pytest.raises(NotProvenError, match="1 transactions stand in the audit log more than once"):
        proof.check([again / "audit", tmp_path / "audit"], [])


def test_another_signature_in_the_ledger_does_not_count(tmp_path: Path, sent: list[Sent]) -> None:
    """Under the right audit id, too: what a replay would give is what came out."""
    released = record(tmp_path, sent, sent)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as ledger, ledger:
        ledger.execute("UPDATE claims SET signature = replace(signature, ?, ?)", (released["T-0"].value, "AAAA"))
    proof = Proof(public_key_pem(KEY.public_key()))
    for name, page in sent:
        proof.send(name, page.digest)
        proof.receive(name, released[name].to_message())
    with pytest.raises(NotProvenError, match="ledger has 3 signatures, of 3 that came back, or others"):
        proof.check([tmp_path / "audit"], [tmp_path / "ledger.sqlite3"])
