"""A connection before and during its TLS handshake: bounded in number and time, and told of when it is refused."""

import asyncio
import ssl
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from signer.api import handshake_errors as errors
from signer.api.auth_errors import (
    CertificateExpiredError,
    CertificateNotYetValidError,
    CertificatePurposeError,
    CertificateRevokedError,
)
from signer.api.protocol import HttpProtocol
from signer.api.refusals import Refusal, RefusalLog
from signer.api.tls import TlsMaterial
from signer.errors import SignerError

HANDSHAKE_TIMEOUT_S: Final = 10.0
# So many may be shaking hands beyond the connections that are let in, to be told over TLS that there are too many.
_SPARE_HANDSHAKES: Final = 32
# X509_V_ERR_*, openssl/x509_vfy.h
_ERRORS_BY_VERIFY_CODE: Final[Mapping[int, type[SignerError]]] = MappingProxyType(
    {
        3: errors.RevocationListMissingError,
        9: CertificateNotYetValidError,
        10: CertificateExpiredError,
        12: errors.RevocationListExpiredError,
        18: errors.AuthorityUnknownError,
        19: errors.AuthorityUnknownError,
        20: errors.AuthorityUnknownError,
        21: errors.AuthorityUnknownError,
        23: CertificateRevokedError,
        26: CertificatePurposeError,
    }
)
# SSL_R_*, openssl/sslerr.h
_ERRORS_BY_REASON: Final[Mapping[str, type[SignerError]]] = MappingProxyType(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": errors.CertificateMissingError,
        "UNSUPPORTED_PROTOCOL": errors.TlsVersionError,
        "NO_SHARED_CIPHER": errors.TlsCipherError,
        "HTTP_REQUEST": errors.TlsExpectedError,
        "WRONG_VERSION_NUMBER": errors.TlsExpectedError,
    }
)
_OTHERWISE: Final = (errors.CertificateRejectedError, errors.HandshakeError, errors.HandshakeTimeoutError)
_ERRORS: Final[tuple[type[SignerError], ...]] = (
    *_ERRORS_BY_VERIFY_CODE.values(),
    *_ERRORS_BY_REASON.values(),
    *_OTHERWISE,
)
CODES: Final = frozenset(kind.code for kind in _ERRORS)
"""Every code that a handshake can be refused with; no answer carries them, for there is no request."""


class TlsConfig(uvicorn.Config):
    """What uvicorn passes on to each connection, and with it what the handshake needs."""

    def __init__(self, material: TlsMaterial, refusals: RefusalLog, app: ASGIApp, options: dict[str, Any]) -> None:
        super().__init__(app, **options, http=TlsGate)
        self.material = material
        self.refusals = refusals
        self.gates: set[TlsGate] = set()


class TlsGate(asyncio.Protocol):
    """Shakes hands with the files that are in force when the connection comes, then leaves it to `HttpProtocol`."""

    def __init__(
        self, config: TlsConfig, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None
    ) -> None:
        self._config = config
        self._connections = server_state.connections
        self._make_http = partial(HttpProtocol, config, server_state, app_state, _loop)
        self._early = bytearray()
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, unless too many are at it."""
        raw = cast("asyncio.Transport", transport)
        limit = self._config.limit_concurrency
        if limit is not None and len(self._config.gates) + len(self._connections) >= limit + _SPARE_HANDSHAKES:
            raw.abort()
            return
        raw.pause_reading()  # what comes next is for the handshake
        self._config.gates.add(self)
        self._task = asyncio.get_running_loop().create_task(self._shake_hands(raw))

    def data_received(self, data: bytes) -> None:
        """Keep what arrived together with the end of the handshake."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that there is nobody to leave it to."""
        del exc
        self._lost = True

    async def _shake_hands(self, raw: asyncio.Transport) -> None:
        material = self._config.material.current
        peer = str((raw.get_extra_info("peername") or ("unknown",))[0])
        try:
            transport = await asyncio.get_running_loop().start_tls(
                raw, self, material.context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError as error:
            self._refuse(error, peer)
            return
        finally:
            self._config.gates.discard(self)
        if transport is None or self._lost:
            return
        if not self._config.material.current.judges_as(material):
            transport.abort()  # other files came into force meanwhile: this client may be one they revoke
            return
        http = self._make_http()
        http.judge = partial(self._config.material.require_accepted, material)
        transport.set_protocol(http)
        http.connection_made(transport)
        if self._early:
            http.data_received(bytes(self._early))

    def _refuse(self, error: OSError, peer: str) -> None:
        refusal = describe(error, peer)
        if refusal is not None:
            self._config.refusals.add(refusal)


def describe(error: OSError, peer: str) -> Refusal | None:
    """Say why a handshake failed; None where the client only went away, as health checks of balancers do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        kind = _ERRORS_BY_VERIFY_CODE.get(error.verify_code, errors.CertificateRejectedError)
        return Refusal(kind.code, peer, detail=f"TLS: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no reason given"
        kind = _ERRORS_BY_REASON.get(reason, errors.HandshakeError)
        return Refusal(kind.code, peer, detail=f"TLS: {reason}")
    if isinstance(error, ConnectionAbortedError):
        return Refusal(errors.HandshakeTimeoutError.code, peer)
    return None
