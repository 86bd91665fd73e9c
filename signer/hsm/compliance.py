"""Is this exactly the key it should be? Found and expected, told in one message."""

from dataclasses import dataclass
from typing import Any, Final

import pkcs11
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import Attribute, KeyType, ObjectClass

from signer.errors import KeyRefusedError
from signer.hsm.errors import fault
from signer.signatures import fingerprint

_KEY_BITS: Final = 2048
_PUBLIC_EXPONENT: Final = 65537
# Attribute, the value it must have, and the name under which the settings may waive it.
_REQUIRED: Final = (
    (Attribute.SIGN, True, None),
    (Attribute.SENSITIVE, True, None),
    (Attribute.EXTRACTABLE, False, None),
    (Attribute.ALWAYS_SENSITIVE, True, "always_sensitive"),
    (Attribute.NEVER_EXTRACTABLE, True, "never_extractable"),
    (Attribute.LOCAL, True, "local"),
)


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What the settings say about one key."""

    alias: str
    label: str
    fingerprint: str | None
    waived: frozenset[str]


def find_private_key(session: pkcs11.Session, spec: KeySpec) -> pkcs11.PrivateKey | None:
    """Find the one private key with the label; raises `KeyRefusedError` if there are several, or `HsmFault`.

    None may also mean that the login is gone: private objects are then invisible (PKCS#11 2.40, section 4.4).
    """
    template = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: spec.label}
    try:
        found = list(session.get_objects(template))
    except pkcs11.PKCS11Error as error:
        raise fault(error, "C_FindObjects") from None
    if len(found) > 1:
        raise refused(spec, f"found {len(found)} private keys with this label, expected exactly one")
    return found[0] if found and isinstance(found[0], pkcs11.PrivateKey) else None


def checked_public_key(session: pkcs11.Session, spec: KeySpec) -> rsa.RSAPublicKey:
    """Find the key and check it; raises `KeyRefusedError` for anything but exactly the right key."""
    key = find_private_key(session, spec)
    if key is None:
        raise refused(spec, "found no private keys with this label, expected exactly one")
    return check_key(key, spec)


def check_key(key: pkcs11.PrivateKey, spec: KeySpec) -> rsa.RSAPublicKey:
    """Give the public half of a key that is as it should be; raises `KeyRefusedError` with every deviation.

    Size and public key come from MODULUS and PUBLIC_EXPONENT of the private object: CloudHSM does not tell
    MODULUS_BITS of a private key, and a public object beside it could be anybody's.
    """
    key_type = _read(key, Attribute.KEY_TYPE, spec)
    if key_type != KeyType.RSA:
        raise refused(spec, f"found key type {getattr(key_type, 'name', key_type)}, expected RSA")
    public_key = read_public_key(key, spec)
    deviations = _deviations_of_public_half(public_key, spec)
    for attribute, expected, waiver in _REQUIRED:
        found = _read(key, attribute, spec)
        if found is not expected and waiver not in spec.waived:
            deviations.append(f"found {attribute.name} {found}, expected {expected}")
    if deviations:
        raise refused(spec, "; ".join(deviations))
    return public_key


def read_public_key(key: pkcs11.PrivateKey, spec: KeySpec) -> rsa.RSAPublicKey:
    """Build the public key from the private object's MODULUS and PUBLIC_EXPONENT (big-endian)."""
    modulus = int.from_bytes(_read(key, Attribute.MODULUS, spec), "big")
    exponent = int.from_bytes(_read(key, Attribute.PUBLIC_EXPONENT, spec), "big")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise refused(spec, "found a modulus or public exponent that makes no RSA key") from None


def _deviations_of_public_half(public_key: rsa.RSAPublicKey, spec: KeySpec) -> list[str]:
    deviations = []
    if public_key.key_size != _KEY_BITS:
        deviations.append(f"found {public_key.key_size} bits, expected {_KEY_BITS}")
    exponent = public_key.public_numbers().e
    if exponent != _PUBLIC_EXPONENT:
        deviations.append(f"found public exponent {exponent}, expected {_PUBLIC_EXPONENT}")
    if spec.fingerprint is not None and fingerprint(public_key) != spec.fingerprint:
        deviations.append(f"found fingerprint {fingerprint(public_key)}, expected {spec.fingerprint}")
    return deviations


def _read(key: pkcs11.PrivateKey, attribute: Attribute, spec: KeySpec) -> Any:
    try:
        return key[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
        raise refused(spec, f"found no readable {attribute.name}") from None
    except pkcs11.PKCS11Error as error:
        raise fault(error, "C_GetAttributeValue") from None


def refused(spec: KeySpec, why: str) -> KeyRefusedError:
    """Name the key and what is wrong with it."""
    return KeyRefusedError(f"key {spec.alias} (label {spec.label}): {why}")
