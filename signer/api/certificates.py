"""Whose is this client certificate? SPIFFE ID, then DNS name, then subject; its chain was verified elsewhere."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from signer.api.auth_errors import (
    BadCertificateError,
    CertificateExpiredError,
    CertificateIdentityError,
    CertificateNotYetValidError,
    CertificatePurposeError,
)

MAX_PEM_BYTES: Final = 16_384
_SPIFFE_SCHEME: Final = "spiffe://"
# SPIFFE-ID, sections 2.1 to 2.3: no empty segment, no query, no port, no percent-encoding, nothing relative.
_SPIFFE_ID: Final = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+)*")
_MAX_SPIFFE_BYTES: Final = 2048
# A wildcard stands for many; who asks is one.
_DNS_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_MAX_SUBJECT: Final = 512

Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client certificate says."""

    caller: str
    """`spiffe://<trust domain>/<path>`, `dns:<name>` or `subject:<RFC 4514>`."""
    thumbprint: bytes
    """SHA-256 over the DER (RFC 8705, section 3.1)."""
    serial: int
    not_before: datetime
    not_after: datetime

    def check_dates(self, now: datetime) -> None:
        """Raise `CertificateNotYetValidError` or `CertificateExpiredError`: connections may outlive a certificate."""
        if now < self.not_before:
            msg = "the client certificate is not valid yet"
            raise CertificateNotYetValidError(msg)
        if now > self.not_after:
            msg = "the client certificate has expired"
            raise CertificateExpiredError(msg)


@lru_cache(maxsize=1024)
def read_certificate(pem: str) -> ClientCertificate:
    """Read one PEM certificate (the first, where a chain follows); raises a `BadCertificateError`.

    The same for each request of a connection, so it is remembered.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        _require_purpose(certificate)
        caller = _caller(certificate)
        return ClientCertificate(
            caller,
            certificate.fingerprint(hashes.SHA256()),
            certificate.serial_number,
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # TypeError: a name that is a bit string.
        msg = "the client certificate cannot be read"
        raise BadCertificateError(msg) from None


def _require_purpose(certificate: x509.Certificate) -> None:
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    if purposes is not None and wanted.isdisjoint(purposes):
        msg = "the certificate is not one for client authentication"
        raise CertificatePurposeError(msg)


def _caller(certificate: x509.Certificate) -> str:
    names = _extension(certificate, x509.SubjectAlternativeName) or ()
    uris = [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    if any(uri.lower().startswith(_SPIFFE_SCHEME) for uri in uris):
        return _spiffe_id(uris)
    dns_names = [name.value for name in names if isinstance(name, x509.DNSName)]
    if dns_names:
        return "dns:" + _dns_name(dns_names[0])
    subject = certificate.subject.rfc4514_string()
    if not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        msg = "the certificate names nobody: no SPIFFE ID, no DNS name, no subject"
        raise CertificateIdentityError(msg)
    return "subject:" + subject


def _spiffe_id(uris: list[str]) -> str:
    # X509-SVID, section 2: more than one URI must be refused.
    if len(uris) != 1 or len(uris[0]) > _MAX_SPIFFE_BYTES or _SPIFFE_ID.fullmatch(uris[0]) is None:
        msg = "the certificate does not name exactly one well-formed SPIFFE ID"
        raise CertificateIdentityError(msg)
    return uris[0]


def _dns_name(name: str) -> str:
    lower = name.lower()
    if _DNS_NAME.fullmatch(lower) is None:
        msg = "the certificate's first DNS name is not the name of one host"
        raise CertificateIdentityError(msg)
    return lower


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
