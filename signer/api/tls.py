"""The TLS files in force: read whole, checked, taken or left as one; read again when they change."""

import ssl
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from signer.api.auth_errors import CertificateRevokedError, CertificateUnverifiedError
from signer.errors import ConfigurationError
from signer.http_settings import TlsSettings
from signer.logs import Logger, frames_of
from signer.metrics import AuthMetrics

_OTHERS_MAY_OPEN: Final = stat.S_IROTH | stat.S_IWOTH
_CRL_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_CERTIFICATE_END: Final = b"CERTIFICATE-----"
# Forward secrecy and authenticated encryption; TLS 1.3 knows nothing else.
_TLS12_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class _Material:
    context: ssl.SSLContext
    expires: dict[str, datetime]
    """By setting, the end of what ends first."""
    crls: Sequence[x509.CertificateRevocationList]


@dataclass(frozen=True, slots=True)
class _Refused:
    """Files that could not be taken."""

    signature: list[tuple[int, ...]]
    reason: str


class TlsMaterial:
    """The context for new connections; raises `ConfigurationError` if the files are wrong at the start.

    Later a file that is wrong changes nothing. Its thread runs from `watch` to `close`.
    """

    def __init__(
        self, settings: TlsSettings, metrics: AuthMetrics, logger: Logger, wall_clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._logger = logger
        self._wall_clock = wall_clock
        self._on_change: Callable[[], None] = _nothing
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tls-files", daemon=True)
        self._taken = self._signature()
        self._refused: _Refused | None = None
        self._current = self._take()

    @property
    def context(self) -> ssl.SSLContext:
        """What the next connection is made with."""
        return self._current.context

    def watch(self, on_change: Callable[[], None]) -> None:
        """Look at the files from now on; `on_change` is called, on another thread, when others are in force."""
        self._on_change = on_change
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def check_for_change(self) -> None:
        """Take the files if they are others than those in force, and right.

        What was refused is looked at again each time: a revocation list may come before its time.
        """
        signature = self._signature()
        if signature == self._taken:
            self._note(None)
            return
        try:
            material = self._take()
        except ConfigurationError as error:
            self._note(_Refused(signature, error.message))
            return
        if self._signature() != signature:
            return  # somebody is writing: what was read may be half of it
        self._taken, self._current = signature, material
        self._note(None)
        self._metrics.tls_reloads.labels("taken").inc()
        self._logger.info("tls.reloaded", expires={name: end.isoformat() for name, end in material.expires.items()})
        self._on_change()

    def require_accepted(self, context: ssl.SSLContext, certificate: str) -> None:
        """Return if a client whose connection was made with `context` may have its request worked on.

        `certificate` is its own, in PEM. Raises `CertificateRevokedError`, or `CertificateUnverifiedError` where
        other files are in force by now and do not revoke it.
        """
        material = self._current
        if context is material.context:
            return
        client = x509.load_pem_x509_certificate(certificate.encode("ascii"))
        if any(_revokes(crl, client) for crl in material.crls):
            msg = "the client certificate was revoked while its request was under way"
            raise CertificateRevokedError(msg)
        msg = "other TLS files came into force while the request was under way: send it on a new connection"
        raise CertificateUnverifiedError(msg)

    def warnings(self) -> tuple[str, ...]:
        """Say what whoever runs the service has to know, though it goes on."""
        refused = self._refused
        return () if refused is None else (f"{refused.reason}; the TLS files in force stay so",)

    def _note(self, refused: _Refused | None) -> None:
        """Tell of what is wrong with the files, once."""
        if refused is not None and refused != self._refused:
            self._metrics.tls_reloads.labels("refused").inc()
            self._logger.warning("tls.reload_refused", reason=refused.reason)
        self._refused = refused
        self._metrics.tls_stale.set(0 if refused is None else 1)

    def _run(self) -> None:
        while not self._closing.wait(self._settings.reload_interval_s):
            try:
                self.check_for_change()
            except Exception as error:  # noqa: BLE001 - without this thread nobody would ever be revoked again
                self._logger.error(  # noqa: TRY400 - the exception's text could quote a file
                    "tls.failed", error_type=type(error).__name__, traceback=frames_of(error)
                )

    def _signature(self) -> list[tuple[int, ...]]:
        """Tell the files from what they were: a mounted secret changes by a new file, a copy by time or size."""
        return [_stat(path) for path in self._files()]

    def _files(self) -> Iterator[Path]:
        settings = self._settings
        yield from (settings.certificate, settings.key)
        yield from (path for path in (settings.client_ca, settings.client_crl) if path is not None)

    def _take(self) -> _Material:
        material = _load(self._settings, self._wall_clock())
        for name, end in material.expires.items():
            self._metrics.tls_expires.labels(name).set(end.timestamp())
        return material


def _load(settings: TlsSettings, now: datetime) -> _Material:
    context, crls = _server_context(settings), list[x509.CertificateRevocationList]()
    expires = {"certificate": _first_end(_certificates("certificate", settings.certificate))}
    if expires["certificate"] <= now:
        msg = "http.tls.certificate has expired"
        raise ConfigurationError(msg)
    if settings.client_ca is not None:
        authorities = _certificates("client_ca", settings.client_ca)
        expires["client_ca"] = _first_end(authorities)
        _load_into(context, "client_ca", settings.client_ca)
        required = settings.client_certificate == "required"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if settings.client_crl is not None:
            crls = _crls(settings.client_crl)
            expires["client_crl"] = _checked_end(settings.client_crl, crls, authorities, now)
            _load_into(context, "client_crl", settings.client_crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return _Material(context, expires, crls)


def _server_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS12_CIPHERS)
    # A resumed session shows no certificate anew. TLS 1.2 still resumes by session id, within one context: that is
    # under the same files, and each request looks at the dates.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _require_private(settings.key)
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


def _require_private(key: Path) -> None:
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
    now: datetime,
) -> datetime:
    """Give the moment when the first list runs out.

    Every authority needs a list that it signed and that is in force, or OpenSSL refuses all that it vouched for.
    """
    for authority in authorities:
        if not any(_signed(crl, authority) for crl in crls):
            msg = f"http.tls.client_crl {path} lacks a revocation list of one of the authorities in client_ca"
            raise ConfigurationError(msg)
    ends = [crl.next_update_utc for crl in crls if crl.next_update_utc is not None]
    if len(ends) != len(crls) or min(ends) <= now or any(crl.last_update_utc > now for crl in crls):
        msg = f"http.tls.client_crl {path} holds a revocation list that is not in force now"
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


def _revokes(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    found = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    return crl.issuer == certificate.issuer and found is not None


def _stat(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()  # follows the links by which mounted secrets are exchanged
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _nothing() -> None:
    return
