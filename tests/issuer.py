"""A token issuer for tests, which also makes the tokens that no honest issuer makes."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from signer.signatures import public_key_pem
from tests.pki import Holder

ISSUER = "https://issuer.example/realms/bank"
AUDIENCE = "signer"
SUBJECT = "settlement-service"
CALLER = f"jwt:{ISSUER}#{SUBJECT}"
KEY_ID = "key-1"


def base64url(data: bytes) -> str:
    """Without padding, as in RFC 7515."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs claims with keys that it publishes."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec_key = ec.generate_private_key(ec.SECP256R1())

    def jwks(self, key_id: str = KEY_ID, **more: Any) -> bytes:
        """The published keys."""
        numbers = self.key.public_key().public_numbers()
        modulus, exponent = (base64url(_big_endian(number)) for number in (numbers.n, numbers.e))
        rsa_key = {"kty": "RSA", "kid": key_id, "use": "sig", "n": modulus, "e": exponent, **more}
        point = self.ec_key.public_key().public_numbers()
        x, y = (base64url(number.to_bytes(32, "big")) for number in (point.x, point.y))
        ec_key = {"kty": "EC", "crv": "P-256", "kid": "ec-1", "use": "sig", "x": x, "y": y}
        return json.dumps({"keys": [rsa_key, ec_key]}).encode()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """What an honest token says, with `changes`; a claim set to None is left out."""
        now = int(time.time())
        times = {"exp": now + 300, "iat": now}
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, **times, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """An RS256 token, whatever its header claims."""
        signed = self.unsigned({"alg": "RS256", "kid": KEY_ID, "typ": "at+jwt", **(header or {})}, **changes)
        return self.sign(signed)

    def sign(self, signed: str) -> str:
        """Sign header and claims as RS256."""
        return f"{signed}.{base64url(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def ec_token(self, header: Mapping[str, Any], **changes: Any) -> str:
        """An ES256 token."""
        signed = self.unsigned({"alg": "ES256", "kid": "ec-1", **header}, **changes)
        r, s = decode_dss_signature(self.ec_key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def hs256_token(self) -> str:
        """The classic: the public key, which everybody has, taken for a shared secret."""
        signed = self.unsigned({"alg": "HS256", "kid": KEY_ID})
        secret = public_key_pem(self.key.public_key())
        return f"{signed}.{base64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"

    def unsigned(self, header: Mapping[str, Any], **changes: Any) -> str:
        """Header and claims."""
        return f"{_part(header)}.{_part(self.claims(**changes))}"


def bound_to(holder: Holder) -> dict[str, str]:
    """The claim that binds a token to a certificate (RFC 8705, section 3.1)."""
    return {"x5t#S256": base64url(holder.thumbprint)}


def _part(members: Mapping[str, Any]) -> str:
    return base64url(json.dumps(members).encode())


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
