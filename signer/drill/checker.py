"""Proves what came out: with what was sent, a public key, `cryptography` and the audit log, and no code of the core.

Only whether the chain itself is whole is left to `signer.audit.verification`.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer.audit.verification import verify_directory
from signer.drill.evidence import Evidence, Released, Sent

_PADDINGS: Final[Mapping[str, AsymmetricPadding]] = {
    "RSASSA_PKCS1_V1_5_SHA_256": padding.PKCS1v15(),
    "RSASSA_PSS_SHA_256": padding.PSS(padding.MGF1(hashes.SHA256()), 32),
}
_SIGNED: Final = ("signed", "replayed")


@dataclass(frozen=True, slots=True)
class Findings:
    """Transactions that ended as none may; each set should be empty."""

    lost: frozenset[str]
    """Sent, and never signed."""
    conflicting: frozenset[str]
    """Signed over two digests."""
    wrong_released: frozenset[str]
    """Out with a signature that is not the key's over what was sent."""
    unaudited: frozenset[str]
    """Out with a signature of which the audit log knows nothing."""
    audit_problem: str | None
    """What is wrong with the chain; then nothing that came out counts as audited."""

    def counts(self, among: frozenset[str] | None = None) -> dict[str, int]:
        """Count them, all or those among some transactions."""
        sets = {name: getattr(self, name) for name in ("lost", "conflicting", "wrong_released", "unaudited")}
        return {name: len(found if among is None else found & among) for name, found in sets.items()}

    @property
    def clean(self) -> bool:
        """Whether there is nothing to find."""
        return self.audit_problem is None and not any(self.counts().values())


def check(evidence: Evidence, audit_directory: Path, public_key_pem: bytes) -> Findings:
    """Check everything that was released against what was sent and what was recorded."""
    public_key = load_pem_public_key(public_key_pem)
    if not isinstance(public_key, RSAPublicKey):
        raise TypeError(type(public_key))
    verification = verify_directory(audit_directory)
    records = _records(audit_directory)
    recorded = {
        (record["audit_id"], record["signature_sha256"])
        for record in records
        if verification.ok and record["outcome"] in _SIGNED
    }
    digests = _digests_on_record(records)
    wrong, unaudited = set(), set()
    for released in evidence.released:
        digests[released.transaction_id].add(base64.b64decode(released.signature["digest"]).hex())
        if not _is_right(released, evidence.sent.get(released.transaction_id), public_key):
            wrong.add(released.transaction_id)
        if (released.signature["audit_id"], _hash_of(released)) not in recorded:
            unaudited.add(released.transaction_id)
    return Findings(
        lost=frozenset(evidence.unsigned()),
        conflicting=frozenset(name for name, found in digests.items() if len(found) > 1),
        wrong_released=frozenset(wrong),
        unaudited=frozenset(unaudited),
        audit_problem=None if verification.problem is None else verification.problem.message,
    )


def _records(directory: Path) -> list[dict[str, Any]]:
    """Read what the HSM signed, released or not; a line that cannot be read breaks the chain, and is told of there."""
    records = []
    for segment in sorted(directory.glob("audit-*.jsonl")):
        for line in segment.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record.get("operation") == "sign" and record.get("signature_sha256") is not None:
                records.append(record)
    return records


def _digests_on_record(records: list[dict[str, Any]]) -> defaultdict[str, set[str]]:
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        digests[record["transaction_id"]].add(record["digest"].removeprefix("sha256:"))
    return digests


def _is_right(released: Released, sent: Sent | None, public_key: RSAPublicKey) -> bool:
    if sent is None or released.message not in (None, sent.message):
        return False
    # RFC 8785 of what the drill sends: an object of plain keys and ASCII strings.
    content = json.dumps(dict(sent.message), sort_keys=True, separators=(",", ":")).encode()
    if base64.b64decode(released.signature["digest"]) != hashlib.sha256(content).digest():
        return False
    try:
        public_key.verify(released.value(), content, _PADDINGS[released.signature["algorithm"]], hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _hash_of(released: Released) -> str:
    return "sha256:" + hashlib.sha256(released.value()).hexdigest()
