"""The TLS files in force: read whole, checked, taken or left as one; read again when they change."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from signer.api import tls_files
from signer.api.auth_errors import CertificateRevokedError, CertificateUnverifiedError
from signer.api.tls_files import Material
from signer.errors import ConfigurationError
from signer.http_settings import TlsSettings
from signer.logs import Logger, frames_of
from signer.metrics import AuthMetrics


@dataclass(frozen=True, slots=True)
class _Refused:
    """Files that could not be taken."""

    signature: list[tuple[int, ...]]
    reason: str


class TlsMaterial:
    """What new connections are made with; raises `ConfigurationError` if the files are wrong at the start.

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
        self._early: tuple[list[tuple[int, ...]], Material] | None = None
        """What was read, and refused by the clock alone: its files are not parsed again at each look."""
        self._current = tls_files.read(settings)
        self._current.require_in_force(wall_clock())
        self._show_ends()

    @property
    def current(self) -> Material:
        """What the next connection is made with."""
        return self._current

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
            material = self._read(signature)
            material.require_in_force(self._wall_clock())
        except ConfigurationError as error:
            self._note(_Refused(signature, error.message))
            return
        if self._signature() != signature:
            return  # somebody is writing: what was read may be half of it
        self._taken, self._early = signature, None
        self._note(None)
        if material is self._current:
            return
        self._current = material
        self._show_ends()
        self._metrics.tls_reloads.labels("taken").inc()
        self._logger.info("tls.reloaded", expires={name: end.isoformat() for name, end in material.expires.items()})
        self._on_change()

    def require_accepted(self, earlier: Material, certificate: str) -> None:
        """Return if a client whose connection was made with `earlier` may have its request worked on.

        `certificate` is its own, in PEM. Raises `CertificateRevokedError`, or `CertificateUnverifiedError` where
        only a new handshake could tell.
        """
        material = self._current
        if material.judges_as(earlier):
            return
        client = x509.load_pem_x509_certificate(certificate.encode("ascii"))
        if material.revokes(client):
            msg = "the client certificate was revoked while its request was under way"
            raise CertificateRevokedError(msg)
        if not material.accepts_too(client, earlier):
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
        return [_stat(path) for _, path in tls_files.files_of(self._settings)]

    def _read(self, signature: list[tuple[int, ...]]) -> Material:
        """Give what the files hold: what is in force, where they were only written anew."""
        if self._early is not None and self._early[0] == signature:
            return self._early[1]
        tls_files.require_private(self._settings.key)
        if tls_files.digests_of(self._settings) == self._current.digests:
            return self._current
        material = tls_files.read(self._settings)
        self._early = (signature, material)
        return material

    def _show_ends(self) -> None:
        for name, end in self._current.expires.items():
            self._metrics.tls_expires.labels(name).set(end.timestamp())


def _stat(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()  # follows the links by which mounted secrets are exchanged
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _nothing() -> None:
    return
