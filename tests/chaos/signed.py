"""A signed batch, read and verified without the service's code."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.chaos.evidence import Copy

_PADDINGS: Final[Mapping[str, AsymmetricPadding]] = {
    "RSASSA_PKCS1_V1_5_SHA_256": padding.PKCS1v15(),
    "RSASSA_PSS_SHA_256": padding.PSS(padding.MGF1(hashes.SHA256()), 32),
}
_DEFAULT: Final = "RSASSA_PKCS1_V1_5_SHA_256"


def read_key(pem: bytes) -> RSAPublicKey:
    """Read the public key."""
    key = load_pem_public_key(pem)
    if not isinstance(key, RSAPublicKey):
        raise TypeError(type(key))
    return key


def batch_id_of(body: str) -> str:
    """Name a batch that came out; its first characters, if it cannot be read."""
    try:
        return str(json.loads(body)["batch_id"])
    except (ValueError, KeyError, TypeError):
        return body[:40]


def signatures_of(body: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the id and the signature of each transaction that has one; that they all must is for `problems` to find."""
    try:
        transactions = json.loads(body)["transactions"]
    except (ValueError, KeyError, TypeError):
        return
    for item in transactions:
        if isinstance(item.get("signature"), dict):
            yield item["transaction_id"], item["signature"]


def problems(copy: Copy, sent: str, key: RSAPublicKey) -> Iterator[str]:
    """Say what is wrong with a copy of the batch that was `sent`."""
    content_sha256 = hashlib.sha256(copy.body.encode()).hexdigest()
    expected: dict[str, Any] = json.loads(sent)
    if (copy.attributes.get("batch_id"), copy.attributes.get("content_sha256")) != (
        expected["batch_id"],
        content_sha256,
    ):
        yield "its message attributes name another batch or content"
    document = json.loads(copy.body)
    signatures = [item.pop("signature", None) for item in document["transactions"]]
    # As text, for 1 and true are equal to Python.
    if json.dumps(document) != json.dumps({**expected, "schema": "signed-settlement-batch/1"}):
        yield "it is not what was sent"
        return
    algorithm = expected.get("algorithm", _DEFAULT)
    for transaction, signature in zip(expected["transactions"], signatures, strict=True):
        if signature is None or signature["algorithm"] != algorithm or not _is_valid(signature, transaction, key):
            yield f"{transaction['transaction_id']}: no valid signature over what was sent"


def canonical(transaction: Mapping[str, Any]) -> bytes:
    """Give the bytes that are signed.

    RFC 8785 for what is sent here: keys of the Basic Multilingual Plane, no floats.
    """
    if "payload" in transaction:
        return base64.b64decode(transaction["payload"], validate=True)
    return json.dumps(transaction["message"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _is_valid(signature: Mapping[str, str], transaction: Mapping[str, Any], key: RSAPublicKey) -> bool:
    content = canonical(transaction)
    if hex_of(signature["digest"]) != hashlib.sha256(content).hexdigest():
        return False
    try:
        value = base64.b64decode(signature["value"], validate=True)
        key.verify(value, content, _PADDINGS[signature["algorithm"]], hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def hex_of(text: str) -> str:
    """Turn base64 into hex."""
    return base64.b64decode(text).hex()


def sha256_of(text: str) -> str:
    """Give the hash of what base64 stands for, as the audit log writes it."""
    return "sha256:" + hashlib.sha256(base64.b64decode(text)).hexdigest()
