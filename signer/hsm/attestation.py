"""The evidence about a key: every property as the HSM tells it, beside what it should be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pkcs11
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from signer.errors import KeyRefusedError
from signer.hsm.compliance import Finding, KeySpec, examine_key, find_private_key, read_public_key
from signer.hsm.errors import HsmFault
from signer.hsm.module import Module
from signer.signatures import fingerprint, public_key_pem

_COUNT: Final = "private keys with the label"


@dataclass(frozen=True, slots=True)
class Attestation:
    """What was found about one key at one moment."""

    alias: str
    label: str
    compliant: bool
    fingerprint: str | None
    public_key: str | None
    """PEM; None where there is no such RSA key, as is the fingerprint."""
    token: str
    token_serial: str
    token_manufacturer: str
    token_model: str
    token_firmware: str
    module: str
    crypto_user: str
    examined_at: str
    findings: list[Finding]


def attest(module: Module, specs: Sequence[KeySpec], crypto_user: str, now: str) -> list[Attestation]:
    """Examine every key, right or wrong, in a module that is logged in; raises `SignerError`."""
    try:
        session = module.open_session()
        return [_attest(module, session, spec, crypto_user, now) for spec in specs]
    except HsmFault as fault:
        raise fault.error from None


def rows(attestations: Sequence[Attestation]) -> Iterator[dict[str, str]]:
    """Give one row for each finding, for a table."""
    for attestation in attestations:
        for finding in attestation.findings:
            yield {
                "alias": attestation.alias,
                "subject": finding.subject,
                "found": finding.found,
                "expected": finding.expected,
                "verdict": "ok" if finding.ok else "waived" if finding.waived else "WRONG",
            }


def _attest(module: Module, session: pkcs11.Session, spec: KeySpec, crypto_user: str, now: str) -> Attestation:
    findings, public_key = _examine(session, spec)
    token = module.token
    return Attestation(
        alias=spec.alias,
        label=spec.label,
        compliant=all(finding.ok or finding.waived for finding in findings),
        fingerprint=fingerprint(public_key) if public_key else None,
        public_key=public_key_pem(public_key).decode("ascii") if public_key else None,
        token=token.label,
        token_serial=module.token_serial,
        token_manufacturer=token.manufacturer_id,
        token_model=token.model,
        token_firmware=".".join(map(str, token.firmware_version)),
        module=str(module.path),
        crypto_user=crypto_user,
        examined_at=now,
        findings=findings,
    )


def _examine(session: pkcs11.Session, spec: KeySpec) -> tuple[list[Finding], RSAPublicKey | None]:
    try:
        key = find_private_key(session, spec)
    except KeyRefusedError:
        return [Finding(_COUNT, "several", "1", ok=False)], None
    if key is None:
        return [Finding(_COUNT, "0", "1", ok=False)], None
    findings = [Finding(_COUNT, "1", "1", ok=True), *examine_key(key, spec)]
    try:
        return findings, read_public_key(key, spec)
    except KeyRefusedError:
        return findings, None
