"""Reads the public key to verify with, from PEM or from a JWKS."""

import json
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK


def read_public_key(content: bytes, kid: str | None = None) -> bytes:
    """Give it as PEM; raises `ValueError` if a JWKS has none or several and `kid` does not say which."""
    if not content.lstrip().startswith(b"{"):
        return content
    keys: list[dict[str, Any]] = [each for each in json.loads(content)["keys"] if kid in (None, each.get("kid"))]
    if len(keys) != 1:
        msg = f"{len(keys)} keys in the JWKS are meant; --kid says which"
        raise ValueError(msg)
    key = PyJWK.from_dict(keys[0], algorithm="RS256").key
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
