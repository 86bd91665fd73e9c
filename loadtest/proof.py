"""Proves what a load got: every signature verified, and each of them, no more and no fewer, in audit log and ledger."""

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.audit.verification import verify_directory

_Record = tuple[str, tuple[str, str]]
"""A transaction, the audit id of its signature, and the SHA-256 of that."""


class NotProvenError(Exception):
    """What was measured did not happen as it should: the figure is worth nothing."""


class Proof:
    """Collects what was sent and what came back."""

    def __init__(self, public_key_pem: bytes, *, verify_each: bool = False) -> None:
        """With `verify_each` not even the same signature over the same digest is taken for verified."""
        public_key = load_pem_public_key(public_key_pem)
        if not isinstance(public_key, RSAPublicKey):
            raise TypeError(type(public_key))
        self._public_key = public_key
        self._verify_each = verify_each
        self._verified: set[tuple[bytes, bytes]] = set()
        self._sent: dict[str, bytes] = {}
        self._released: dict[str, tuple[str, str]] = {}
        self._unsure: set[str] = set()

    def send(self, transaction_id: str, digest: bytes) -> None:
        """Note what goes in."""
        self._sent[transaction_id] = digest

    def receive(self, transaction_id: str, signature: Mapping[str, str]) -> None:
        """Verify what came out; raises `NotProvenError`."""
        digest, value = self._sent.get(transaction_id), base64.b64decode(signature["value"])
        if digest is None or base64.b64decode(signature["digest"]) != digest or not self._verifies(digest, value):
            msg = f"{transaction_id} has a signature that is not the key's over what was sent"
            raise NotProvenError(msg)
        if transaction_id in self._released:
            msg = f"{transaction_id} came out twice"
            raise NotProvenError(msg)
        self._released[transaction_id] = (signature["audit_id"], _sha256(value))

    def give_up(self, transaction_id: str) -> None:
        """Note that it was refused or came too late: it may have been signed, or not."""
        self._unsure.add(transaction_id)

    def check(self, audits: Sequence[Path], ledgers: Sequence[Path]) -> int:
        """Compare with what the services recorded; gives the number of signatures. Raises `NotProvenError`.

        Without `audits` and `ledgers`, which a deployed service keeps to itself, it says whether all came back.
        """
        unsure = self._unsure - self._released.keys()
        if missing := self._sent.keys() - self._released.keys() - unsure:
            msg = f"{len(missing)} of {len(self._sent)} transactions did not come back"
            raise NotProvenError(msg)
        for directory in audits:
            if (problem := verify_directory(directory).problem) is not None:
                msg = f"the audit log is not whole: {problem.message}"
                raise NotProvenError(msg)
        if audits:
            self._compare("audit log", [each for directory in audits for each in _audited(directory)], unsure)
        if ledgers:
            self._compare("ledger", [each for path in ledgers for each in _kept(path)], unsure)
        return len(self._released)

    def _compare(self, where: str, records: Sequence[_Record], unsure: AbstractSet[str]) -> None:
        recorded = dict(records)
        if len(recorded) != len(records):
            msg = f"{len(records) - len(recorded)} transactions stand in the {where} more than once"
            raise NotProvenError(msg)
        sure = {name: signature for name, signature in recorded.items() if name not in unsure}
        if sure != self._released:
            msg = f"the {where} has {len(sure)} signatures, of {len(self._released)} that came back, or others"
            raise NotProvenError(msg)

    def _verifies(self, digest: bytes, value: bytes) -> bool:
        if self._verify_each or (digest, value) not in self._verified:
            try:
                self._public_key.verify(value, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
            except InvalidSignature:
                return False
            self._verified.add((digest, value))
        return True


def check_made(came: int, made: int) -> None:
    """Raise `NotProvenError` if the module made fewer signatures than came out.

    PKCS#1 v1.5 is deterministic, so one that the service remembers is as good as a new one in all that is verified.
    """
    if made < came:
        msg = f"{came} signatures came out, {made} were made by the HSM"
        raise NotProvenError(msg)


def _sha256(value: bytes) -> str:
    return "sha256:" + hashlib.sha256(value).hexdigest()


def _audited(directory: Path) -> Iterator[_Record]:
    for segment in sorted(directory.glob("audit-*.jsonl")):
        with segment.open("rb") as lines:
            for line in lines:
                record: dict[str, Any] = json.loads(line)
                if record["operation"] == "sign" and record["outcome"] == "signed":
                    yield record["transaction_id"], (record["audit_id"], record["signature_sha256"])


def _kept(path: Path) -> Iterator[_Record]:
    # What was completed in the very instant of its claim are rows that a benchmark filled the ledger with.
    wanted = "SELECT transaction_id, signature FROM claims WHERE signature IS NOT NULL AND claimed_at <> completed_at"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for name, text in connection.execute(wanted):
            signature = json.loads(text)
            yield name, (signature["audit_id"], _sha256(base64.b64decode(signature["value"])))
