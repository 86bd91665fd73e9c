"""Is this exactly the key it should be? Found and expected, told in one message."""

from dataclasses import dataclass
from datetime import datetime
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


_UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What the settings say about one version of a key."""

    alias: str
    label: str
    fingerprint: str | None
    waived: frozenset[str]
    active_from: datetime | None = None
    """UTC; None: since ever."""
    verify_until: datetime | None = None
    """UTC; None: no end is set."""
    lead_s: float = 0.0
    """How long it is published before it signs, if its key is found only while the service runs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One property of a key, as it is and as it should be."""

    subject: str
    found: str
    expected: str
    ok: bool
    waived: bool = False
    """Whether the settings let it differ."""


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
    """Give the public half of a key that is as it should be; raises `KeyRefusedError` with every deviation."""
    deviations = [
        f"found {finding.subject} {finding.found}, expected {finding.expected}"
        for finding in examine_key(key, spec)
        if not (finding.ok or finding.waived)
    ]
    if deviations:
        raise refused(spec, "; ".join(deviations))
    return read_public_key(key, spec)


def examine_key(key: pkcs11.PrivateKey, spec: KeySpec) -> list[Finding]:
    """Compare everything about a key with what it should be; raises `HsmFault`.

    Size and public key come from MODULUS and PUBLIC_EXPONENT of the private object: CloudHSM does not tell
    MODULUS_BITS of a private key, and a public object beside it could be anybody's.
    """
    key_type = _read(key, Attribute.KEY_TYPE)
    if key_type != KeyType.RSA:
        return [Finding("key type", str(getattr(key_type, "name", key_type)), "RSA", ok=False)]
    findings = [Finding("key type", "RSA", "RSA", ok=True), *_examine_public_half(key, spec)]
    for attribute, expected, waiver in _REQUIRED:
        found = _read(key, attribute)
        shown = _UNREADABLE if found is None else str(found)
        findings.append(Finding(attribute.name, shown, str(expected), found is expected, waiver in spec.waived))
    return findings


def read_public_key(key: pkcs11.PrivateKey, spec: KeySpec) -> rsa.RSAPublicKey:
    """Build the public key from the private object's MODULUS and PUBLIC_EXPONENT (big-endian).

    Raises `KeyRefusedError`, `HsmFault`.
    """
    modulus, exponent = _read(key, Attribute.MODULUS), _read(key, Attribute.PUBLIC_EXPONENT)
    try:
        return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    except (TypeError, ValueError):
        raise refused(spec, "found a modulus or public exponent that makes no RSA key") from None


def _examine_public_half(key: pkcs11.PrivateKey, spec: KeySpec) -> list[Finding]:
    try:
        public_key = read_public_key(key, spec)
    except KeyRefusedError:
        return [Finding("public half", _UNREADABLE, "an RSA public key", ok=False)]
    bits, exponent, found = public_key.key_size, public_key.public_numbers().e, fingerprint(public_key)
    return [
        Finding("key size", f"{bits} bits", f"{_KEY_BITS} bits", bits == _KEY_BITS),
        Finding("public exponent", str(exponent), str(_PUBLIC_EXPONENT), exponent == _PUBLIC_EXPONENT),
        Finding("fingerprint", found, spec.fingerprint or "any: not pinned", spec.fingerprint in (None, found)),
    ]


def _read(key: pkcs11.PrivateKey, attribute: Attribute) -> Any:
    """Give the value; None for one that the token does not tell. Raises `HsmFault`."""
    try:
        return key[attribute]
    except (pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive):
        return None
    except pkcs11.PKCS11Error as error:
        raise fault(error, "C_GetAttributeValue") from None


def refused(spec: KeySpec, why: str) -> KeyRefusedError:
    """Name the key and what is wrong with it."""
    return KeyRefusedError(f"key {spec.alias} (label {spec.label}): {why}")
