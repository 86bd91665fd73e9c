"""What a signature is, without an HSM: the algorithm table, DigestInfo, fingerprints and verification."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from signer.errors import UnknownAlgorithmError

DIGEST_SIZE_BYTES: Final = 32
# DER of DigestInfo{sha256, NULL} up to the digest itself (RFC 8017, section 9.2, note 1).
_SHA256_DIGEST_INFO_PREFIX: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_PREHASHED_SHA256: Final = Prehashed(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to sign a SHA-256 digest with an RSA key."""

    name: str
    """The name AWS KMS uses; the one in messages."""
    jose: str
    """The JOSE identifier (RFC 7518, section 3.1)."""
    mechanism: str
    """The PKCS#11 mechanism that signs `hsm_input`."""
    input_prefix: bytes
    """What stands before the digest in the HSM's input."""
    padding: AsymmetricPadding
    """The padding that verification expects."""

    def hsm_input(self, digest: bytes) -> bytes:
        """Give the bytes that C_Sign receives for `digest` (32 bytes)."""
        return self.input_prefix + digest


RSASSA_PKCS1_V1_5_SHA_256: Final = Algorithm(
    name="RSASSA_PKCS1_V1_5_SHA_256",
    jose="RS256",
    mechanism="CKM_RSA_PKCS",
    input_prefix=_SHA256_DIGEST_INFO_PREFIX,
    padding=padding.PKCS1v15(),
)
RSASSA_PSS_SHA_256: Final = Algorithm(
    name="RSASSA_PSS_SHA_256",
    jose="PS256",
    mechanism="CKM_RSA_PKCS_PSS",
    input_prefix=b"",
    padding=padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=DIGEST_SIZE_BYTES),
)
DEFAULT_ALGORITHM: Final = RSASSA_PKCS1_V1_5_SHA_256
ALGORITHMS: Final[Mapping[str, Algorithm]] = MappingProxyType(
    {algorithm.name: algorithm for algorithm in (RSASSA_PKCS1_V1_5_SHA_256, RSASSA_PSS_SHA_256)}
)


def algorithm_named(name: object) -> Algorithm:
    """Look up an algorithm by its KMS name; raises `UnknownAlgorithmError` for anything else, never a default."""
    if isinstance(name, str) and name in ALGORITHMS:
        return ALGORITHMS[name]
    expected = " or ".join(ALGORITHMS)
    msg = f"unknown signing algorithm; expected {expected}"
    raise UnknownAlgorithmError(msg)


def verifies(public_key: rsa.RSAPublicKey, algorithm: Algorithm, digest: bytes, signature: bytes) -> bool:
    """Tell whether `signature` is `algorithm` over `digest` (32 bytes) by the owner of `public_key`."""
    try:
        public_key.verify(signature, digest, algorithm.padding, _PREHASHED_SHA256)
    except InvalidSignature:
        return False
    return True


def public_key_der(public_key: rsa.RSAPublicKey) -> bytes:
    """Encode as DER SubjectPublicKeyInfo (RFC 5280)."""
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_key_pem(public_key: rsa.RSAPublicKey) -> bytes:
    """Encode as PEM SubjectPublicKeyInfo, what `openssl dgst -verify` reads."""
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(public_key: rsa.RSAPublicKey) -> str:
    """Name a key: `sha256:<hex>` over its DER SubjectPublicKeyInfo."""
    return "sha256:" + hashlib.sha256(public_key_der(public_key)).hexdigest()


def public_jwk(public_key: rsa.RSAPublicKey, key_id: str) -> dict[str, str]:
    """Encode as a JSON Web Key for signatures (RFC 7517, RFC 7518 section 6.3.1)."""
    numbers = public_key.public_numbers()
    return {"kty": "RSA", "use": "sig", "kid": key_id, "n": _base64url_uint(numbers.n), "e": _base64url_uint(numbers.e)}


def _base64url_uint(value: int) -> str:
    octets = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
