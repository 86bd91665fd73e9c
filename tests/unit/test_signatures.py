"""The algorithm table and the verifier agree with a stock library, and with nothing else."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from signer import signatures
from signer.errors import UnknownAlgorithmError

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
MESSAGE = b"what is to be signed"
DIGEST = hashlib.sha256(MESSAGE).digest()
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
SIGNED = {
    "RSASSA_PKCS1_V1_5_SHA_256": KEY.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()),
    "RSASSA_PSS_SHA_256": KEY.sign(MESSAGE, PSS, hashes.SHA256()),
}


@pytest.mark.parametrize("name", SIGNED)
def test_a_stock_signature_verifies_and_nothing_near_it_does(name: str) -> None:
    """Another digest, another key, the other algorithm and a cut signature all fail."""
    algorithm = signatures.algorithm_named(name)
    (other,) = (item for item in signatures.ALGORITHMS.values() if item is not algorithm)
    assert signatures.verifies(KEY.public_key(), algorithm, DIGEST, SIGNED[name])
    assert not signatures.verifies(KEY.public_key(), algorithm, hashlib.sha256(b"x").digest(), SIGNED[name])
    assert not signatures.verifies(OTHER.public_key(), algorithm, DIGEST, SIGNED[name])
    assert not signatures.verifies(KEY.public_key(), other, DIGEST, SIGNED[name])
    assert not signatures.verifies(KEY.public_key(), algorithm, DIGEST, SIGNED[name][:-1])
    assert not signatures.verifies(KEY.public_key(), algorithm, DIGEST, b"")


@given(st.sampled_from(sorted(SIGNED)), st.integers(0, 2047))
def test_no_bit_of_a_signature_is_without_meaning(name: str, bit: int) -> None:
    """One flipped bit anywhere is found."""
    wrong = bytearray(SIGNED[name])
    wrong[bit // 8] ^= 1 << (bit % 8)
    assert not signatures.verifies(KEY.public_key(), signatures.algorithm_named(name), DIGEST, bytes(wrong))


@pytest.mark.parametrize("name", ["", "RS256", "rsassa_pss_sha_256", "RSASSA_PSS_SHA_512", None, 7, ["x"]])
def test_an_unknown_algorithm_is_never_a_default(name: object) -> None:
    """Whatever is not in the table is refused, without being quoted."""
    with pytest.raises(UnknownAlgorithmError) as caught:
        signatures.algorithm_named(name)
    assert "expected RSASSA_PKCS1_V1_5_SHA_256 or RSASSA_PSS_SHA_256" in str(caught.value)


def test_the_digest_info_is_the_one_of_rfc_8017() -> None:
    """PKCS#1 v1.5 over our input equals PKCS#1 v1.5 of the message: the encoded block of the signature shows it."""
    numbers = KEY.public_key().public_numbers()
    block = pow(int.from_bytes(SIGNED["RSASSA_PKCS1_V1_5_SHA_256"], "big"), numbers.e, numbers.n).to_bytes(256, "big")
    expected = signatures.RSASSA_PKCS1_V1_5_SHA_256.hsm_input(DIGEST)
    assert block == b"\x00\x01" + b"\xff" * (256 - 3 - len(expected)) + b"\x00" + expected


def test_a_jwk_names_the_same_key() -> None:
    """The JWK's modulus and exponent are those of the key."""
    jwk = signatures.public_jwk(KEY.public_key(), "kid")
    numbers = KEY.public_key().public_numbers()
    assert int.from_bytes(base64.urlsafe_b64decode(jwk["n"] + "=="), "big") == numbers.n
    assert int.from_bytes(base64.urlsafe_b64decode(jwk["e"] + "=="), "big") == numbers.e
