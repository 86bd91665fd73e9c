"""A key, and answers signed with it, as entrances give them that a load test is tried on."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from loadtest.verifier import Verifier
from signer.signatures import public_key_pem

KEY = rsa.generate_private_key(65537, 2048)
Answer = dict[str, Any]


def sign(transaction_id: str, message: Any) -> Answer:
    canonical = rfc8785.dumps(message)
    signature = {
        "digest": base64.b64encode(hashlib.sha256(canonical).digest()).decode(),
        "value": base64.b64encode(KEY.sign(canonical, padding.PKCS1v15(), hashes.SHA256())).decode(),
        "audit_id": f"audit-{transaction_id}",
    }
    return {"transaction_id": transaction_id, "signature": signature}


def change_value(answer: Answer) -> Answer:
    value = bytearray(base64.b64decode(answer["signature"]["value"]))
    value[100] ^= 1
    return answer | {"signature": answer["signature"] | {"value": base64.b64encode(value).decode()}}


@contextmanager
def new_verifier() -> Iterator[Verifier]:
    with closing(Verifier(public_key_pem(KEY.public_key()))) as verifier:
        yield verifier
