"""Evidence as a run without fault leaves it, made here with a key of its own, for tests to doctor."""

import base64
import hashlib
import json
from dataclasses import replace
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.chaos.batches import PSS, Mill
from tests.chaos.evidence import Copy, Evidence, Row, Sent, SetAside
from tests.chaos.signed import canonical

CHAIN: Final = "0123456789ab"


@cache
def private_key() -> RSAPrivateKey:
    """One key for all tests."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def sign(transaction: dict[str, Any], algorithm: str, audit_id: str) -> dict[str, str]:
    """Make the signature member of a transaction."""
    content = canonical(transaction)
    pad = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if algorithm == PSS else padding.PKCS1v15()
    value = private_key().sign(content, pad, hashes.SHA256())
    return {
        "algorithm": algorithm,
        "key_alias": "settlement",
        "digest": base64.b64encode(hashlib.sha256(content).digest()).decode(),
        "value": base64.b64encode(value).decode(),
        "audit_id": audit_id,
    }


class Bench:
    """Makes the evidence of a run: every batch that can be signed is, and recorded, and kept."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        pem = private_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.evidence = Evidence(pem, [], [], [], [], {}, {"inbound": 0})

    def run(self) -> Evidence:
        """Send one of each kind, and let happen what should."""
        mill = Mill(seed=1)
        for kind in ("good", "good", "twice", "large", "bad", "bad", "conflict", "rival"):
            for sent in mill.of(kind):
                self._send(sent)
        return replace(self.evidence, audit={"audit-1": chained(self.records)})

    def _send(self, sent: Sent) -> None:
        evidence = self.evidence
        evidence.sent.append(sent)
        paired = any(other.pair == sent.pair for other in evidence.sent[:-1] if sent.pair)
        if sent.expect == "quarantine" or (sent.expect == "either" and paired):
            evidence.set_aside.append(SetAside(sent.body, {"code": sent.code or "transaction_conflict"}))
            return
        again = [copy for copy in evidence.out if copy.attributes["batch_id"] == sent.batch_id]
        evidence.out.append(replace(again[0], sent_at_ms=len(evidence.out)) if again else self.release(sent))

    def release(self, sent: Sent) -> Copy:
        """Sign a batch."""
        document = json.loads(sent.body)
        document["schema"] = "signed-settlement-batch/1"
        for transaction in document["transactions"]:
            audit_id = f"{CHAIN}-{len(self.records) + 1:016d}"
            signature = sign(transaction, document["algorithm"], audit_id)
            transaction["signature"] = signature
            digest = base64.b64decode(signature["digest"]).hex()
            self.evidence.ledger.append(Row("settlement", transaction["transaction_id"], digest, signature))
            self.records.append(self._record(transaction["transaction_id"], signature, digest))
        return copy_of(document, len(self.evidence.out), sent.group)

    def _record(self, transaction_id: str, signature: dict[str, str], digest: str) -> dict[str, Any]:
        value = base64.b64decode(signature["value"])
        return {
            "operation": "sign",
            "outcome": "signed",
            "key_alias": "settlement",
            "transaction_id": transaction_id,
            "digest": f"sha256:{digest}",
            "signature_sha256": f"sha256:{hashlib.sha256(value).hexdigest()}",
        }


def copy_of(document: dict[str, Any], at_ms: int, group: str = "") -> Copy:
    """Make the message that takes a batch out."""
    body = json.dumps(document)
    attributes = {"batch_id": document["batch_id"], "content_sha256": hashlib.sha256(body.encode()).hexdigest()}
    return Copy(body, attributes, at_ms, group, f"{at_ms:020}")


def chained(records: list[dict[str, Any]]) -> list[bytes]:
    """Chain records as the audit log does."""
    lines: list[bytes] = []
    previous = "0" * 64
    for seq, record in enumerate(records, start=1):
        place = {"chain": CHAIN, "seq": seq, "audit_id": f"{CHAIN}-{seq:016d}", "prev": previous}
        content = json.dumps({**place, **record}, separators=(",", ":"))
        previous = hashlib.sha256(content.encode()).hexdigest()
        lines.append(f'{content[:-1]},"hash":"{previous}"}}\n'.encode())
    return lines
