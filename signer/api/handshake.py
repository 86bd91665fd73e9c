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

from signer.api.protocol import HttpProtocol
from signer.api.refusals import Refusal, RefusalLog
from signer.api.tls import TlsMaterial

HANDSHAKE_TIMEOUT_S: Final = 10.0
# So many may be shaking hands beyond the connections that are let in, to be told over TLS that there are too many.
_SPARE_HANDSHAKES: Final = 32
# X509_V_ERR_*, openssl/x509_vfy.h
_CODES_BY_VERIFY_CODE: Final[Mapping[int, str]] = MappingProxyType(
    {
        3: "revocation_list_missing",
        9: "certificate_not_yet_valid",
        10: "certificate_expired",
        12: "revocation_list_expired",
        18: "certificate_authority_unknown",
        19: "certificate_authority_unknown",
        20: "certificate_authority_unknown",
        21: "certificate_authority_unknown",
        23: "certificate_revoked",
        26: "certificate_wrong_purpose",
    }
)
# SSL_R_*, openssl/sslerr.h
_CODES_BY_REASON: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PEER_DID_NOT_RETURN_A_CERTIFICATE": "certificate_missing",
        "UNSUPPORTED_PROTOCOL": "tls_version_not_accepted",
        "NO_SHARED_CIPHER": "tls_cipher_not_accepted",
        "HTTP_REQUEST": "tls_expected",
        "WRONG_VERSION_NUMBER": "tls_expected",
    }
)
CODES: Final = frozenset(
    {*_CODES_BY_VERIFY_CODE.values(), *_CODES_BY_REASON.values(), "certificate_rejected", "tls_handshake_failed"}
    | {"tls_handshake_timeout"}
)
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
        context = self._config.material.context
        peer = str((raw.get_extra_info("peername") or ("unknown",))[0])
        try:
            transport = await asyncio.get_running_loop().start_tls(
                raw, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except OSError as error:
            self._refuse(error, peer)
            return
        finally:
            self._config.gates.discard(self)
        if transport is None or self._lost:
            return
        if context is not self._config.material.context:
            transport.abort()  # other files came into force meanwhile: this client may be one they revoke
            return
        http = self._make_http()
        http.judge = partial(self._config.material.require_accepted, context)
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
        code = _CODES_BY_VERIFY_CODE.get(error.verify_code, "certificate_rejected")
        return Refusal(code, peer, detail=f"TLS: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no reason given"
        return Refusal(_CODES_BY_REASON.get(reason, "tls_handshake_failed"), peer, detail=f"TLS: {reason}")
    if isinstance(error, ConnectionAbortedError):
        return Refusal("tls_handshake_timeout", peer)
    return None
