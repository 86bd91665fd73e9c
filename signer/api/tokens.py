"""Bearer tokens: a JWT of the one configured issuer, checked claim by claim (RFC 8725, RFC 9068, RFC 8705).

PyJWT verifies the signature with a key and an algorithm that were chosen here; nothing in a token decides about either.
"""

import base64
import binascii
import hmac
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import jwt

from signer import strict_json
from signer.api.auth_errors import (
    BadTokenError,
    TokenAlgorithmError,
    TokenAudienceError,
    TokenClaimError,
    TokenClaimMissingError,
    TokenExpiredError,
    TokenHeaderError,
    TokenIssuerError,
    TokenKeyUnknownError,
    TokenLifetimeError,
    TokenNotBoundError,
    TokenNotYetValidError,
    TokenSignatureError,
    TokenTooLargeError,
)
from signer.api.certificates import ClientCertificate
from signer.api.jwks import KeySet
from signer.errors import SignerError
from signer.http_settings import JwtSettings

MAX_TOKEN_BYTES: Final = 8192
_REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub")
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_SUBJECT: Final = re.compile(r"[!-~]{1,255}")
# RFC 9068, section 2.1; without a type the claims alone say what it is.
_TYPES: Final = frozenset({"", "jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Each would have the token choose its own key, or its own rules (RFC 8725, section 3.10; RFC 7515, section 4.1.11).
_REFUSED: Final = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})


class TokenVerifier:
    """From a bearer token to the caller `jwt:<iss>#<sub>`."""

    def __init__(self, settings: JwtSettings, keys: KeySet, wall_clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._keys = keys
        self._wall_clock = wall_clock
        self._jws = jwt.PyJWS(algorithms=sorted(settings.algorithms))

    def caller_of(self, token: str, certificate: ClientCertificate | None) -> str:
        """Name whom the issuer vouches for; raises a `BadTokenError`, or `TokenKeysUnavailableError`.

        With a `certificate` the token must be bound to it, and a bound token needs it.
        """
        claims = self._verified_claims(token)
        self._check_times(claims)
        self._check_parties(claims)
        _check_binding(claims, certificate)
        return f"jwt:{claims['iss']}#{claims['sub']}"

    def _verified_claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            msg = f"the token is larger than {MAX_TOKEN_BYTES} bytes"
            raise TokenTooLargeError(msg)
        match = _COMPACT.fullmatch(token)
        if match is None:
            msg = "the token is not three base64url parts"
            raise BadTokenError(msg)
        header = _members(match[1])
        algorithm = self._algorithm(header)
        name = header.get("kid")
        if not isinstance(name, str):
            msg = "the token does not name its key"
            raise TokenKeyUnknownError(msg)
        key = self._keys.find(name, algorithm)
        try:
            self._jws.decode_complete(token, key, algorithms=[algorithm])
        except (jwt.PyJWTError, ValueError, TypeError):
            msg = "the token's signature does not verify"
            raise TokenSignatureError(msg) from None
        return _members(match[2])

    def _algorithm(self, header: Mapping[str, Any]) -> str:
        algorithm, kind = header.get("alg"), header.get("typ", "")
        if not isinstance(algorithm, str) or algorithm not in self._settings.algorithms:
            msg = "the token is not signed with an algorithm that is accepted here"
            raise TokenAlgorithmError(msg)
        if not _REFUSED.isdisjoint(header) or not isinstance(kind, str) or kind.lower() not in _TYPES:
            msg = "the token's header holds what no access token needs"
            raise TokenHeaderError(msg)
        return algorithm

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        for name in _REQUIRED:
            if name not in claims:
                msg = f"the token has no `{name}`"
                raise TokenClaimMissingError(msg)
        now_s, leeway_s = self._wall_clock().timestamp(), self._settings.leeway_s
        if now_s >= _seconds(claims, "exp") + leeway_s:
            msg = "the token has expired"
            raise TokenExpiredError(msg)
        if _seconds(claims, "exp") - _seconds(claims, "iat") > self._settings.max_lifetime_s + leeway_s:
            msg = "the token is valid for longer than any that is taken here"
            raise TokenLifetimeError(msg)
        starts_s = max(_seconds(claims, name) for name in ("iat", "nbf") if name in claims)
        if now_s < starts_s - leeway_s:
            msg = "the token is not valid yet"
            raise TokenNotYetValidError(msg)

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims["iss"] != self._settings.issuer:
            msg = "the token comes from another issuer"
            raise TokenIssuerError(msg)
        if self._settings.audience not in audience:
            msg = "the token is meant for another service"
            raise TokenAudienceError(msg)
        if not isinstance(claims["sub"], str) or _SUBJECT.fullmatch(claims["sub"]) is None:
            msg = "the token's `sub` is not a string of 1 to 255 visible ASCII characters"
            raise TokenClaimError(msg)


def _check_binding(claims: Mapping[str, Any], certificate: ClientCertificate | None) -> None:
    confirmation = claims.get("cnf")
    if confirmation is None and certificate is None:
        return
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    shown = b"" if certificate is None else _base64url(certificate.thumbprint)
    # A confirmation of another kind is one that we cannot check, so it does not hold.
    if not isinstance(thumbprint, str) or not hmac.compare_digest(thumbprint.encode("utf-8", "replace"), shown):
        msg = "the token is not bound to the client certificate that it came with"
        raise TokenNotBoundError(msg)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _members(part: str) -> Mapping[str, Any]:
    try:
        members = strict_json.parse(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (SignerError, binascii.Error):
        members = None
    if not isinstance(members, dict):
        msg = "the token does not consist of JSON objects"
        raise BadTokenError(msg)
    return members


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    # NumericDate (RFC 7519, section 2): seconds since 1970.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        msg = f"the token's `{name}` is not a number of seconds since 1970"
        raise TokenClaimError(msg)
    return value
