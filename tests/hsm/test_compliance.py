"""A key that is not exactly as it should be is refused at start, and the refusal says what was found."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from signer.errors import KeyRefusedError
from signer.signatures import fingerprint
from tests.hsm.conftest import GOOD_LABEL, OpenKeyRing, spec


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("wrong-bits", "found key size 3072 bits, expected 2048 bits"),
        ("wrong-ec", "found key type EC, expected RSA"),
        ("wrong-extractable", "found EXTRACTABLE True, expected False"),
        ("wrong-not-sensitive", "found SENSITIVE False, expected True"),
        ("wrong-sign", "found SIGN False, expected True"),
        ("wrong-two", "found 2 private keys with this label, expected exactly one"),
        ("absent", "found no private keys with this label, expected exactly one"),
    ],
)
def test_each_wrong_key_is_refused_with_its_own_message(open_key_ring: OpenKeyRing, label: str, said: str) -> None:
    """The message names alias, label, what was found and what was expected."""
    with pytest.raises(KeyRefusedError) as caught:
        open_key_ring(spec(label))
    assert caught.value.message.startswith(f"key settlement (label {label}): ")
    assert said in caught.value.message


def test_another_key_under_the_right_label_is_refused(open_key_ring: OpenKeyRing) -> None:
    """A pinned fingerprint lets exactly one key through."""
    right = open_key_ring().key_ring.key("settlement").fingerprint
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    with pytest.raises(KeyRefusedError, match=f"found fingerprint {right}, expected {fingerprint(other)}"):
        open_key_ring(spec(GOOD_LABEL, fingerprint(other)))
    assert open_key_ring(spec(GOOD_LABEL, right)).key_ring.key("settlement").fingerprint == right


def test_a_waiver_covers_only_what_it_names(open_key_ring: OpenKeyRing, capfd: pytest.CaptureFixture[str]) -> None:
    """An extractable key stays refused whatever is waived; a waiver that is used is said loudly."""
    with pytest.raises(KeyRefusedError) as caught:
        open_key_ring(spec("wrong-extractable", None, "always_sensitive", "never_extractable", "local"))
    assert "NEVER_EXTRACTABLE" not in caught.value.message
    assert "found EXTRACTABLE True" in caught.value.message
    with pytest.raises(KeyRefusedError, match="found SENSITIVE False"):
        open_key_ring(spec("wrong-not-sensitive", None, "always_sensitive", "never_extractable", "local"))
    capfd.readouterr()
    open_key_ring(spec(GOOD_LABEL, None, "local"))
    said = capfd.readouterr().out
    assert "key.checks_waived" in said
    assert "warning" in said


def test_an_exponent_other_than_65537_is_refused(open_key_ring: OpenKeyRing) -> None:
    """RSA-2048 with another public exponent is not the key it should be."""
    with pytest.raises(KeyRefusedError, match="found public exponent 3, expected 65537"):
        open_key_ring(spec("wrong-exponent"))
