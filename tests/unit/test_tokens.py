"""Bearer tokens: what is accepted, to the second, and that nothing but our own refusals comes of anything else."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from signer import logs
from signer.api.auth_errors import (
    BadTokenError,
    TokenClaimError,
    TokenExpiredError,
    TokenKeysUnavailableError,
    TokenKeyUnknownError,
    TokenLifetimeError,
    TokenNotBoundError,
    TokenNotYetValidError,
)
from signer.api.certificates import read_certificate
from signer.api.jwks import KeySet, KeySource, parse_jwks
from signer.api.tokens import MAX_TOKEN_BYTES, TokenVerifier
from signer.errors import ConfigurationError
from signer.http_settings import JwtSettings
from signer.metrics import Metrics
from tests.issuer import AUDIENCE, CALLER, ISSUER, Issuer, base64url, bound_to
from tests.pki import Authority

JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3))
NOW_S = 2_000_000_000
LEEWAY_S = 30
ISSUING = Issuer()
HOLDER = Authority("Root").issue()


class Documents(KeySource):
    """Gives what it was told to give, or fails."""

    def __init__(self, document: bytes | None) -> None:
        self.document = document

    def read(self) -> bytes:
        if self.document is None:
            msg = "the JWK set cannot be read (Test)"
            raise ConfigurationError(msg)
        return self.document


class World:
    """A verifier, the keys it looks at, and its clocks."""

    def __init__(self, document: bytes | None, **settings: Any) -> None:
        self.now_s = 0.0
        self.source = Documents(document)
        options = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": "jwks.json", "leeway_s": LEEWAY_S, **settings}
        jwt = JwtSettings(**{"algorithms": {"RS256", "ES256"}, **options})
        metrics = Metrics(CollectorRegistry()).auth
        self.keys = KeySet(self.source, jwt, metrics, logs.get("test"), lambda: self.now_s)
        self.keys.refresh()
        self.verifier = TokenVerifier(jwt, self.keys, lambda: datetime.fromtimestamp(NOW_S, UTC))


def token(**changes: Any) -> str:
    return ISSUING.token(None, **{"iat": NOW_S, "exp": NOW_S + 60, **changes})


WORLD = World(ISSUING.jwks())


def test_an_honest_token_names_its_caller() -> None:
    """Issuer and subject, so that two issuers could never mean one caller."""
    assert WORLD.verifier.caller_of(token(), None) == CALLER


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_kinds_of_tokens(kind: str | None) -> None:
    """RFC 9068, and the many who just say JWT or nothing."""
    header = {"typ": kind} if kind is not None else {"typ": ""}
    made = ISSUING.token(header, iat=NOW_S, exp=NOW_S + 60)
    assert WORLD.verifier.caller_of(made, None) == CALLER


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"exp": NOW_S - LEEWAY_S + 1}, None),
        ({"exp": NOW_S - LEEWAY_S}, TokenExpiredError),
        ({"iat": NOW_S + LEEWAY_S}, None),
        ({"iat": NOW_S + LEEWAY_S + 1}, TokenNotYetValidError),
        ({"nbf": NOW_S + LEEWAY_S}, None),
        ({"nbf": NOW_S + LEEWAY_S + 1}, TokenNotYetValidError),
        ({"exp": NOW_S + 0.5}, None),
        ({"exp": NOW_S + 86_400 + LEEWAY_S}, None),
        ({"exp": NOW_S + 86_401 + LEEWAY_S}, TokenLifetimeError),
        ({"exp": 1e308}, TokenLifetimeError),
        ({"iat": 0, "exp": 1}, TokenExpiredError),
        ({"iat": -1}, TokenClaimError),
        ({"nbf": -0.5}, TokenClaimError),
        ({"exp": -1e308}, TokenClaimError),
    ],
)
def test_times_to_the_second(changes: dict[str, Any], error: type[Exception] | None) -> None:
    """The leeway is bounded on both sides."""
    if error is None:
        assert WORLD.verifier.caller_of(token(**changes), None) == CALLER
    else:
        with pytest.raises(error):
            WORLD.verifier.caller_of(token(**changes), None)


def test_bound_to_its_certificate() -> None:
    """RFC 8705: with exactly this one, and not without."""
    bound, certificate = token(cnf=bound_to(HOLDER)), read_certificate(HOLDER.pem)
    assert WORLD.verifier.caller_of(bound, certificate) == CALLER
    other = read_certificate(Authority("Root").issue().pem)
    for made, shown in ((bound, None), (bound, other), (token(), certificate), (token(cnf="canary"), None)):
        with pytest.raises(TokenNotBoundError):
            WORLD.verifier.caller_of(made, shown)


def test_keys_are_kept_while_they_cannot_be_fetched() -> None:
    """Stale while error, but not for ever; then it is the service that is unavailable, not the token that is bad."""
    world = World(ISSUING.jwks(), max_stale_s=600)
    world.source.document, world.now_s = None, 600.0
    world.keys.refresh()
    assert world.verifier.caller_of(token(), None) == CALLER
    world.now_s = 601.0
    with pytest.raises(TokenKeysUnavailableError):
        world.verifier.caller_of(token(), None)
    world.source.document = ISSUING.jwks()
    world.keys.refresh()
    assert world.verifier.caller_of(token(), None) == CALLER


def test_keys_that_are_withdrawn_serve_no_longer() -> None:
    """The next set replaces the one before."""
    world = World(ISSUING.jwks())
    world.source.document = ISSUING.jwks("key-2")
    world.keys.refresh()
    with pytest.raises(TokenKeyUnknownError):
        world.verifier.caller_of(token(), None)


def test_a_key_serves_the_algorithm_that_its_issuer_names() -> None:
    """A key published for encryption padding or another hash is not for this one."""
    world = World(ISSUING.jwks(alg="RS512"))
    with pytest.raises(TokenKeyUnknownError):
        world.verifier.caller_of(token(), None)


def _document(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def _rsa(**changes: Any) -> dict[str, Any]:
    key: dict[str, Any] = {**json.loads(ISSUING.jwks())["keys"][0], **changes}
    return {name: value for name, value in key.items() if value is not None}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[1]}',
        b'{"keys":[],"keys":[]}',
        _document(),
        _document({"kty": "oct", "kid": "key-1", "k": "c2VjcmV0"}),
        _document(_rsa(use="enc")),
        _document(_rsa(kid=None)),
        _document(_rsa(d="AQAB")),
        _document(_rsa(n=base64url(b"\xff" * 128))),
        _document(_rsa(n="!")),
        _document(_rsa(kty="canary")),
        _document(_rsa(), _rsa()),
    ],
)
def test_what_is_no_set_of_public_keys_is_refused(document: bytes) -> None:
    """Secrets, private halves, keys of 1,024 bits, and two keys of one name are not for verifying."""
    with pytest.raises(ConfigurationError):
        parse_jwks(document)


MEMBERS = st.dictionaries(st.sampled_from(["kty", "kid", "n", "e", "crv", "x", "y", "alg", "use"]), JSON | st.text())


@given(MEMBERS)
def test_no_key_however_strange_ends_the_fetching(changes: dict[str, Any]) -> None:
    """The thread that fetches outlives every document."""
    try:
        keys = parse_jwks(_document(_rsa(**changes)))
    except ConfigurationError:
        return
    assert len(keys) == 1


def test_a_key_nobody_understands_does_not_spoil_the_set() -> None:
    """Issuers publish keys for others too."""
    assert set(parse_jwks(_document({"kty": "canary", "kid": "x"}, _rsa()))) == {"key-1"}


@given(st.text(max_size=200) | st.lists(st.binary(max_size=60).map(base64url), min_size=3, max_size=3).map(".".join))
def test_anything_else_is_refused(text: str) -> None:
    """Nothing but our own errors is ever raised."""
    with pytest.raises(BadTokenError):
        WORLD.verifier.caller_of(text, None)


@given(st.dictionaries(st.sampled_from(["exp", "iat", "nbf", "iss", "aud", "sub", "cnf"]), JSON, min_size=1))
def test_signed_nonsense_is_refused(changes: dict[str, Any]) -> None:
    """An issuer may sign what it likes: each claim has its type, whatever it holds."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "iat": NOW_S, "exp": NOW_S + 60}
    try:
        caller = WORLD.verifier.caller_of(token(**{**claims, **changes}), None)
    except BadTokenError:
        return
    assert caller.startswith(f"jwt:{ISSUER}#")


@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(["alg", "kid", "typ", "crit"]), JSON))
def test_headers_of_nonsense_are_refused_or_harmless(header: dict[str, Any]) -> None:
    """Whatever a header holds."""
    try:
        caller = WORLD.verifier.caller_of(ISSUING.token(header, iat=NOW_S, exp=NOW_S + 60), None)
    except BadTokenError:
        return
    assert caller == CALLER


def test_the_largest_token_is_read_and_no_larger() -> None:
    """Bounded before anything is decoded."""
    with pytest.raises(BadTokenError, match="larger than"):
        WORLD.verifier.caller_of("a" * (MAX_TOKEN_BYTES + 1), None)
    with pytest.raises(BadTokenError, match="three"):
        WORLD.verifier.caller_of("a" * MAX_TOKEN_BYTES, None)
