"""The issuer's public keys: fetched by a thread of its own, kept when they cannot be fetched, for a while.

A token is checked on the event loop, so looking a key up never waits: a key that is not known yet is asked for, and
the token that named it is refused until it is there. Issuers publish keys before they sign with them.
"""

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from signer import strict_json
from signer.api.auth_errors import TokenKeysUnavailableError, TokenKeyUnknownError
from signer.errors import ConfigurationError, SignerError
from signer.http_settings import JwtSettings
from signer.logs import Logger
from signer.metrics import AuthMetrics

MAX_JWKS_BYTES: Final = 262_144
FETCH_TIMEOUT_S: Final = 5.0
ASKED_AGAIN_AFTER_S: Final = 10.0
"""Unknown names of keys may be made up: they lead to no more than one fetch in this time."""
_MAX_KEYS: Final = 100
_MIN_RSA_BITS: Final = 2048
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One published key."""

    public_key: PublicKey
    algorithm: str | None
    """The only algorithm it is for, where its issuer says so."""

    def serves(self, algorithm: str) -> bool:
        """Tell whether signatures of this algorithm can come from it: the token alone does not decide that."""
        if self.algorithm is not None and self.algorithm != algorithm:
            return False
        if algorithm in _CURVES:
            return isinstance(self.public_key, ec.EllipticCurvePublicKey) and (
                self.public_key.curve.name == _CURVES[algorithm]
            )
        if algorithm == "EdDSA":
            return isinstance(self.public_key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        return isinstance(self.public_key, rsa.RSAPublicKey)


def parse_jwks(document: bytes) -> dict[str, TokenKey]:
    """Give the usable keys of a JWK set (RFC 7517) by name; raises `ConfigurationError` if there is none.

    What is no public key for signatures is passed over: secrets, private halves, small keys, keys without a name.
    """
    try:
        jwks = strict_json.parse(document)
        listed = jwks["keys"][:_MAX_KEYS]
        keys = [(jwk["kid"], _token_key(jwk)) for jwk in listed if isinstance(jwk, dict) and _may_verify(jwk)]
    except (SignerError, LookupError, TypeError):
        msg = "this is not a JWK set"
        raise ConfigurationError(msg) from None
    usable = {name: key for name, key in keys if key is not None}
    if not usable or len({name for name, _ in keys}) != len(keys):
        msg = "the JWK set holds no key for signatures, or two of one name"
        raise ConfigurationError(msg)
    return usable


def _may_verify(jwk: Mapping[str, Any]) -> bool:
    is_public = jwk.get("kty") in {"RSA", "EC", "OKP"} and "d" not in jwk
    is_named = isinstance(jwk.get("kid"), str) and isinstance(jwk.get("alg"), str | None)
    return is_public and is_named and jwk.get("use", "sig") == "sig"


def _token_key(jwk: Mapping[str, Any]) -> TokenKey | None:
    try:
        key = jwt.PyJWK({name: value for name, value in jwk.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return None
    return TokenKey(key, jwk.get("alg")) if isinstance(key, PublicKey) else None


class KeySource:
    """Reads the document of a JWK set, from a file or over HTTPS."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        # Without redirects: they could lead anywhere. Without proxies from the environment nobody reviewed.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _NoRedirect()]
        if settings.jwks_url is not None and settings.jwks_url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_client_context(settings)))
        self._opener = urllib.request.build_opener(*handlers)

    def read(self) -> bytes:
        """Give the document, no more of it than is allowed; raises `ConfigurationError`."""
        try:
            document = self._fetch()
        except (OSError, HTTPException, ValueError) as error:
            msg = f"the JWK set cannot be read ({type(error).__name__})"
            raise ConfigurationError(msg) from None
        if len(document) > MAX_JWKS_BYTES:
            msg = f"the JWK set is larger than {MAX_JWKS_BYTES} bytes"
            raise ConfigurationError(msg)
        return document

    def _fetch(self) -> bytes:
        if self._settings.jwks_file is not None:
            with self._settings.jwks_file.open("rb") as file:
                return file.read(MAX_JWKS_BYTES + 1)
        with self._opener.open(self._settings.jwks_url or "", timeout=FETCH_TIMEOUT_S) as answer:
            document: bytes = answer.read(MAX_JWKS_BYTES + 1)
            return document


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _client_context(settings: JwtSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.jwks_ca)
    except OSError:
        msg = f"http.jwt.jwks_ca {settings.jwks_ca} cannot be read as PEM"
        raise ConfigurationError(msg) from None


class KeySet:
    """The keys that tokens are checked with now; its thread runs from `start` to `close`."""

    def __init__(
        self, source: KeySource, settings: JwtSettings, metrics: AuthMetrics, logger: Logger, clock: Callable[[], float]
    ) -> None:
        self._source = source
        self._settings = settings
        self._metrics = metrics
        self._logger = logger
        self._clock = clock
        self._keys: dict[str, TokenKey] = {}
        self._fetched_s: float | None = None
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jwks", daemon=True)

    def start(self) -> None:
        """Fetch once, whatever comes of it, and go on fetching."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Fetch no more; a fetch under way is not waited for."""
        self._closing.set()
        self._wanted.set()

    def find(self, name: str, algorithm: str) -> PublicKey:
        """Give the key of this name; raises `TokenKeyUnknownError`, `TokenKeysUnavailableError`."""
        if self._fetched_s is None or self._clock() - self._fetched_s > self._settings.max_stale_s:
            self._wanted.set()
            msg = "the keys of the token issuer cannot be fetched"
            raise TokenKeysUnavailableError(msg)
        key = self._keys.get(name)
        if key is None:
            self._wanted.set()
        if key is None or not key.serves(algorithm):
            msg = "the issuer publishes no such key for this algorithm"
            raise TokenKeyUnknownError(msg)
        return key.public_key

    def refresh(self) -> None:
        """Fetch the keys; where that fails, the ones at hand stay."""
        try:
            keys = parse_jwks(self._source.read())
        except ConfigurationError as error:
            self._metrics.jwks_refreshes.labels("failed").inc()
            self._logger.warning("jwks.refresh_failed", reason=error.message, keys=len(self._keys))
            return
        if keys.keys() != self._keys.keys():
            self._logger.info("jwks.changed", keys=len(keys))
        self._keys, self._fetched_s = keys, self._clock()
        self._metrics.jwks_refreshes.labels("done").inc()
        self._metrics.jwks_fetched.set_to_current_time()

    def _run(self) -> None:
        pause_s = min(ASKED_AGAIN_AFTER_S, self._settings.refresh_s)
        while not self._closing.wait(pause_s):
            self._wanted.wait(self._settings.refresh_s - pause_s)
            self._wanted.clear()
            if not self._closing.is_set():
                self.refresh()
