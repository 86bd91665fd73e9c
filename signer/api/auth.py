"""Who is asking? From the credentials of a request to the name of a caller, on which the policy decides."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.requests import Request

from signer.api.auth_errors import (
    AuthorizationSchemeError,
    CredentialsMissingError,
    InsecureTransportError,
    MultipleCredentialsError,
    TokenInQueryError,
)
from signer.api.certificates import ClientCertificate, read_certificate
from signer.api.frame import request_id_of
from signer.api.refusals import Refusal, RefusalLog
from signer.api.tokens import TokenVerifier
from signer.api.trusted_proxies import TrustedProxies
from signer.errors import SignerError, UnauthenticatedError

LOOPBACK_CALLER: Final = "http:loopback"
_TOKEN_PARAMETERS: Final = frozenset(
    {"token", "jwt", "bearer", "authorization", "assertion", "client_assertion"}
    | {f"{kind}_token" for kind in ("access", "id", "bearer", "auth", "refresh", "jwt", "oauth")}
)
# Whatever it is called: three base64url parts, the first of which begins as a JSON object does.
_TOKEN: Final = re.compile(r"\s*eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\s*")


@dataclass(frozen=True, slots=True)
class Accepted:
    """Which credentials are taken; where there are none, whoever reaches the port is on this machine."""

    certificates: bool
    tokens: TokenVerifier | None
    proxies: TrustedProxies
    plain_tokens: bool
    """Whether a token may come over an unencrypted connection: the port is not reached from outside this machine."""


class Authenticator:
    """Names callers; whoever cannot be named is refused, counted and recorded."""

    def __init__(self, accepted: Accepted, refusals: RefusalLog, wall_clock: Callable[[], datetime]) -> None:
        self._accepted = accepted
        self._refusals = refusals
        self._wall_clock = wall_clock

    def caller_of(self, request: Request) -> str:
        """Give the name of who sent `request`; raises an `UnauthenticatedError`, or `UnavailableError`.

        Runs on the event loop, and does not wait for anything.
        """
        try:
            return self._caller_of(request)
        except UnauthenticatedError as error:
            self.refuse(request, error)
            raise

    def refuse(self, request: Request, error: SignerError, caller: str | None = None) -> None:
        """Count and record that a request is refused; `caller` is who sent it, where that is proven."""
        self._refusals.add(Refusal(error.code, _peer(request), request_id_of(request), caller=caller))

    def _caller_of(self, request: Request) -> str:
        certificate = self._certificate(request)
        token = self._token(request)
        if token is not None and self._accepted.tokens is not None:
            return self._accepted.tokens.caller_of(token, certificate)
        if certificate is not None:
            return certificate.caller
        if self._accepted.certificates or self._accepted.tokens is not None:
            msg = "give a client certificate or a bearer token, whichever this service takes"
            raise CredentialsMissingError(msg)
        return LOOPBACK_CALLER

    def _certificate(self, request: Request) -> ClientCertificate | None:
        # Read in any case: who sends a proxy's headers and is none is refused, whatever else is taken here.
        named = self._accepted.proxies.certificate(request.headers, _peer(request))
        chain = request.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
        if named is not None and chain:
            msg = "a load balancer names a client certificate and shows one too"
            raise MultipleCredentialsError(msg)
        certificate = read_certificate(chain[0]) if chain else named
        if certificate is not None:
            certificate.check_dates(self._wall_clock())
        return certificate

    def _token(self, request: Request) -> str | None:
        if any(_is_token(name, value) for name, value in request.query_params.multi_items()):
            msg = "a token never travels in a query string: send it in Authorization, and revoke this one"
            raise TokenInQueryError(msg)
        values = request.headers.getlist("authorization")
        if not values:
            return None
        if len(values) > 1:
            msg = "Authorization stands twice"
            raise MultipleCredentialsError(msg)
        scheme, _, token = values[0].strip().partition(" ")
        if self._accepted.tokens is None or scheme.lower() != "bearer":
            msg = "Authorization holds no credentials that are taken here"
            raise AuthorizationSchemeError(msg)
        self._require_privacy(request)
        return token.strip()

    def _require_privacy(self, request: Request) -> None:
        is_private = request.scope["scheme"] == "https" or self._accepted.proxies.includes(_peer(request))
        if not is_private and not self._accepted.plain_tokens:
            msg = "a bearer token must come over TLS: revoke this one"
            raise InsecureTransportError(msg)


def _is_token(name: str, value: str) -> bool:
    return name.lower().replace("-", "_") in _TOKEN_PARAMETERS or _TOKEN.fullmatch(value) is not None


def _peer(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"
