"""What TLS files hold: parsed, checked beside each other, and judged by the clock."""

import ssl
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from signer.errors import ConfigurationError
from signer.http_settings import TlsSettings

_OTHERS_MAY_OPEN: Final = stat.S_IROTH | stat.S_IWOTH
_CRL_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_CERTIFICATE_END: Final = b"CERTIFICATE-----"
# Forward secrecy and authenticated encryption; TLS 1.3 knows nothing else.
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Material:
    """The files of one moment, by setting where there are several."""

    context: ssl.SSLContext
    digests: Mapping[str, bytes]
    """SHA-256 of each file."""
    expires: Mapping[str, datetime]
    """The end of what ends first."""
    lists_begin: datetime | None
    """When all revocation lists have come into force."""
    authorities: Sequence[x509.Certificate]
    revoked: Mapping[x509.Name, AbstractSet[int]]
    """Serial numbers by issuer: a list can be long, and is asked on the event loop."""

    def require_in_force(self, now: datetime) -> None:
        """Raise `ConfigurationError` if its time has not come or is over."""
        if self.expires["certificate"] <= now:
            msg = "http.tls.certificate has expired"
            raise ConfigurationError(msg)
        if self.lists_begin is not None and not self.lists_begin <= now < self.expires["client_crl"]:
            msg = "http.tls.client_crl holds a revocation list that is not in force now"
            raise ConfigurationError(msg)

    def judges_as(self, other: "Material") -> bool:
        """Tell whether both let in the same clients."""
        return self._same(other, "client_ca") and self._same(other, "client_crl")

    def revokes(self, certificate: x509.Certificate) -> bool:
        """Tell whether a list names it."""
        return certificate.serial_number in self.revoked.get(certificate.issuer, ())

    def accepts_too(self, client: x509.Certificate, earlier: "Material") -> bool:
        """Tell whether it is certain that `client`, which was let in with `earlier`, would be let in now.

        Of one with an authority in between it is not: that one came along in the handshake, is not at hand any more,
        and may have been revoked.
        """
        return (
            self._same(earlier, "client_ca")
            and not any(map(self.revokes, (client, *self.authorities)))
            and any(_issued(authority, client) for authority in self.authorities)
        )

    def _same(self, other: "Material", setting: str) -> bool:
        return self.digests.get(setting) == other.digests.get(setting)


def files_of(settings: TlsSettings) -> Iterator[tuple[str, Path]]:
    """Give all that are configured, with the names of their settings."""
    for name in ("certificate", "key", "client_ca", "client_crl"):
        path = getattr(settings, name)
        if path is not None:
            yield name, path


def digests_of(settings: TlsSettings) -> Mapping[str, bytes]:
    """Give the SHA-256 of each file; none of one that cannot be read."""
    return {name: _digest(path) for name, path in files_of(settings)}


def read(settings: TlsSettings) -> Material:
    """Read the files, whatever their time; raises `ConfigurationError` if they are wrong or do not fit together."""
    digests = digests_of(settings)
    context, crls = _server_context(settings), list[x509.CertificateRevocationList]()
    expires = {"certificate": _first_end(_certificates("certificate", settings.certificate))}
    authorities: Sequence[x509.Certificate] = ()
    if settings.client_ca is not None:
        authorities = _certificates("client_ca", settings.client_ca)
        expires["client_ca"] = _first_end(authorities)
        _load_into(context, "client_ca", settings.client_ca)
        required = settings.client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if settings.client_crl is not None:
            crls = _crls(settings.client_crl)
            expires["client_crl"] = _checked_end(settings.client_crl, crls, authorities)
            _load_into(context, "client_crl", settings.client_crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    begin = max((crl.last_update_utc for crl in crls), default=None)
    return Material(context, digests, expires, begin, authorities, _revoked(crls))


def _server_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    # A resumed session shows no certificate anew. TLS 1.2 still resumes by session id, within one context: that is
    # under the same files, and each request looks at the dates.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    require_private(settings.key)
    try:
        # A passphrase would be asked for on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=_no_passphrase)
    except (OSError, ValueError):
        msg = "http.tls.certificate and http.tls.key are not PEM files of one certificate and its key"
        raise ConfigurationError(msg) from None
    return context


def _no_passphrase() -> str:
    msg = "the key has a passphrase"
    raise ValueError(msg)


def require_private(key: Path) -> None:
    """Raise `ConfigurationError` if others may open the file."""
    try:
        mode = key.stat().st_mode
    except OSError as error:
        msg = f"http.tls.key {key} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    if mode & _OTHERS_MAY_OPEN:
        msg = f"http.tls.key {key} can be opened by every user of this machine: chmod 600 it"
        raise ConfigurationError(msg)


def _certificates(setting: str, path: Path) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        msg = f"http.tls.{setting} {path} holds no PEM certificates"
        raise ConfigurationError(msg) from None


def _first_end(certificates: Sequence[x509.Certificate]) -> datetime:
    return min(certificate.not_valid_after_utc for certificate in certificates)


def _load_into(context: ssl.SSLContext, setting: str, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError):
        msg = f"http.tls.{setting} {path} cannot be loaded"
        raise ConfigurationError(msg) from None


def _checked_end(
    path: Path,
    crls: Sequence[x509.CertificateRevocationList],
    authorities: Sequence[x509.Certificate],
) -> datetime:
    """Give the moment when the first list runs out.

    Every authority needs a list that it signed, or OpenSSL refuses all that it vouched for.
    """
    for authority in authorities:
        if not any(_signed(crl, authority) for crl in crls):
            msg = f"http.tls.client_crl {path} lacks a revocation list of one of the authorities in client_ca"
            raise ConfigurationError(msg)
    ends = [crl.next_update_utc for crl in crls if crl.next_update_utc is not None]
    if len(ends) != len(crls):
        msg = f"http.tls.client_crl {path} holds a revocation list that does not say when it runs out"
        raise ConfigurationError(msg)
    return min(ends)


def _crls(path: Path) -> list[x509.CertificateRevocationList]:
    try:
        content = path.read_bytes()
        if _CERTIFICATE_END in content:
            msg = f"http.tls.client_crl {path} holds a certificate: it would be trusted"
            raise ConfigurationError(msg)
        return [x509.load_pem_x509_crl(_CRL_BEGIN + part) for part in content.split(_CRL_BEGIN)[1:]]
    except (OSError, ValueError, x509.InvalidVersion):
        msg = f"http.tls.client_crl {path} holds no PEM revocation lists"
        raise ConfigurationError(msg) from None


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        return crl.issuer == authority.subject and crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (TypeError, ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _revoked(crls: Sequence[x509.CertificateRevocationList]) -> Mapping[x509.Name, AbstractSet[int]]:
    revoked = defaultdict[x509.Name, set[int]](set)
    try:
        for crl in crls:
            revoked[crl.issuer].update(entry.serial_number for entry in crl)
    except ValueError:  # a name is read when it is asked for
        msg = "http.tls.client_crl holds a revocation list that cannot be read"
        raise ConfigurationError(msg) from None
    return revoked


def _digest(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return b""
