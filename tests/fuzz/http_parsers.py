"""Parsers of what comes over HTTP: bodies, queries, headers, certificates and tokens."""

import base64
import json
from collections.abc import Generator
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from prometheus_client import CollectorRegistry
from starlette.datastructures import Headers
from starlette.requests import Request

from signer import logs, strict_json
from signer.api.auth import Accepted, Authenticator
from signer.api.auth_errors import TokenKeysUnavailableError
from signer.api.caching import cached_response
from signer.api.certificates import read_certificate
from signer.api.frame import Frame
from signer.api.idempotency import stand_in_id
from signer.api.jwks import parse_jwks
from signer.api.refusals import RefusalLog
from signer.api.requests import parse_search, parse_sign, parse_sign_batch, parse_verify
from signer.api.trusted_proxies import TrustedProxies
from signer.errors import ConfigurationError, InvalidInputError, UnauthenticatedError
from signer.metrics import Metrics
from tests.fuzz import wire
from tests.fuzz.parser import Parser, dumped, text
from tests.issuer import KEY_ID, base64url, bound_to
from tests.pki import CLIENT, DAY, Authority, dns, named, uri
from tests.service.entrance import leaf
from tests.simulators import SimulatedAuditLog
from tests.unit.test_tokens import ISSUING, NOW_S, WORLD, token

_PEER: Final = "192.0.2.7"
_ROOT: Final = Authority("Root")
_HOLDER: Final = _ROOT.issue("settlement", [uri("spiffe://bank.example/settlement")])
_SHOWN: Final = read_certificate(_HOLDER.pem)
_NOW: Final = datetime.now(UTC)
_METRICS: Final = Metrics(CollectorRegistry())
_DIGEST: Final = base64.b64encode(bytes(32)).decode()
_PROXIES: Final = TrustedProxies([ip_network("192.0.2.0/24")])


def _rich_certificate() -> bytes:
    """Give a certificate with much in it that somebody has to read."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [uri("https://bank.example/x"), dns("settlement.bank.example"), x509.RFC822Name("a@bank.example")]
    names += [x509.DirectoryName(named("x")), x509.OtherName(ObjectIdentifier("1.3.6.1"), b"\x0c\x01x")]
    attributes = (
        (NameOID.COUNTRY_NAME, "CH"),
        (NameOID.ORGANIZATION_NAME, "Bank, Example"),
        (NameOID.COMMON_NAME, "x"),
    )
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    builder = x509.CertificateBuilder(_ROOT.certificate.subject, subject, key.public_key(), 4711)
    builder = builder.not_valid_before(_NOW - DAY).not_valid_after(_NOW + DAY)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([CLIENT]), critical=False)
    made = builder.sign(_ROOT.key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


_CERTIFICATES: Final = (
    _rich_certificate(),
    _HOLDER.pem.encode(),
    _ROOT.issue("settlement").pem.encode(),
    _ROOT.issue("x", [dns("settlement.bank.example")], purpose=None).pem.encode(),
)


def _certificate(data: bytes) -> object:
    read_certificate.cache_clear()
    found = read_certificate(text(data))
    found.check_dates(_NOW)
    return found


def _balancer(data: bytes) -> object:
    name, _, serial = text(data).partition("\n")
    headers = {leaf(_HOLDER)[0]: name, "X-Amzn-Mtls-Clientcert-Serial-Number": serial}
    return _PROXIES.certificate(Headers({name: value for name, value in headers.items() if value}), _PEER)


_AUTHENTICATOR: Final = Authenticator(
    Accepted(certificates=True, tokens=WORLD.verifier, proxies=_PROXIES, plain_tokens=True),
    RefusalLog(SimulatedAuditLog(), _METRICS, logs.get("fuzz"), 1, (lambda: datetime.now(UTC), lambda: 0.0)),
    lambda: _NOW,
)


def _request(headers: bytes, query: bytes = b"") -> Request:
    """Make a request of lines `name: value`, as octets."""
    pairs = (line.partition(b":") for line in headers.split(b"\n"))
    state = {"request_id": "request-1"}
    scope = {"type": "http", "scheme": "https", "method": "GET", "path": "/", "query_string": query, "state": state}
    listed = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    return Request({**scope, "headers": listed, "client": (_PEER, 4711)})


def _who(data: bytes) -> object:
    headers, _, query = data.partition(b"\n\n")
    return _AUTHENTICATOR.caller_of(_request(headers, query))


def _framed(data: bytes) -> object:
    """Let the frame look at the request; it answers without waiting for anything."""

    async def receive() -> Any:  # pragma: no cover - nobody reads a body
        return {}

    async def send(_message: Any) -> None:
        return

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await cached_response(Request(scope), b"{}", "application/json", 1)(scope, receive, send)

    running: Generator[Any, Any, None] = Frame(app, _METRICS, logs.get("fuzz"))(
        _request(data).scope, receive, send
    ).__await__()
    return next(running, None)


def _header(data: bytes) -> str:
    return ISSUING.sign(f"{base64url(data)}.{base64url(json.dumps(_CLAIMS).encode())}")


_CLAIMS: Final = ISSUING.claims(iat=NOW_S, exp=NOW_S + 60, nbf=NOW_S, cnf=bound_to(_HOLDER))
_HEADER: Final = {"alg": "RS256", "kid": KEY_ID, "typ": "at+jwt"}


def _claims(data: bytes) -> str:
    return ISSUING.sign(f"{base64url(dumped(_HEADER))}.{base64url(data)}")


_TOKEN_ERRORS: Final = (UnauthenticatedError, TokenKeysUnavailableError)
_SIGN: Final = {"key": "settlement", "transaction_id": "T", "algorithm": "RSASSA_PSS_SHA_256", "dry_run": True}
_ITEMS: Final = [{"reference": "L", "transaction_id": "T", "payload": "AA=="}, {"message": {"a": [1, 1.5, "x"]}}]


def _canonical(data: bytes) -> bytes:
    """Give the one form there is of a document: read again, it is the same."""
    made = strict_json.canonical(strict_json.parse(data))
    assert strict_json.canonical(strict_json.parse(made)) == made
    return made


PARSERS: Final[dict[str, Parser]] = {
    "HTTP/1.1": Parser(wire.read, wire.REQUESTS),
    "json": Parser(strict_json.parse, (b'{"a":[1,-2.5e3,"\\u00e4",true,null,{}]}', b"[1e22]"), (InvalidInputError,)),
    "canonical form": Parser(
        _canonical,
        ('{"\u20ac":1.5,"a":[1,-2.5e-3,"\\u000f",true,null,{}]}'.encode(), b'{"b":1,"a":"x"}'),
        (InvalidInputError,),
    ),
    "sign": Parser(
        lambda data: parse_sign(data, "~once:1"),
        (dumped({**_SIGN, "message": {"amount": "1.00"}}), dumped({"key": "settlement", "digest": _DIGEST})),
        (InvalidInputError,),
    ),
    "sign-batch": Parser(
        lambda data: parse_sign_batch(data, 10, lambda index: f"~once:{index}"),
        (dumped({"key": "settlement", "transactions": _ITEMS, "dry_run": False}),),
        (InvalidInputError,),
    ),
    "verify": Parser(
        parse_verify,
        (dumped({"key": "settlement", "payload": "AA==", "signature": "AA==", "algorithm": "RSASSA_PSS_SHA_256"}),),
        (InvalidInputError,),
    ),
    "search": Parser(
        lambda data: parse_search(_request(b"", data).query_params.multi_items()),
        (b"digest=" + _DIGEST.encode(), b"transaction_id=TXN-000001"),
        (InvalidInputError,),
    ),
    "Idempotency-Key": Parser(
        lambda data: stand_in_id([text(part) for part in data.split(b"\n")], "somebody"),
        (b'"8e03978e-40d5-43dd-bc93-6894a57f9324"', b"plain"),
        (InvalidInputError,),
    ),
    "certificate": Parser(_certificate, _CERTIFICATES, (UnauthenticatedError,)),
    "balancer's headers": Parser(
        _balancer,
        (leaf(_HOLDER)[1].encode(), f"{leaf(_HOLDER)[1]}\n{_SHOWN.serial:X}".encode()),
        (UnauthenticatedError,),
    ),
    "token": Parser(
        lambda data: WORLD.verifier.caller_of(text(data), None),
        (token().encode(), ISSUING.ec_token({}, iat=NOW_S, exp=NOW_S + 60).encode()),
        _TOKEN_ERRORS,
    ),
    "token's header": Parser(
        lambda data: WORLD.verifier.caller_of(_header(data), _SHOWN), (dumped(_HEADER),), _TOKEN_ERRORS
    ),
    "token's claims": Parser(
        lambda data: WORLD.verifier.caller_of(_claims(data), _SHOWN), (dumped(_CLAIMS),), _TOKEN_ERRORS
    ),
    "JWKS": Parser(parse_jwks, (ISSUING.jwks(),), (ConfigurationError,)),
    "credentials": Parser(
        _who,
        (
            f"authorization: Bearer {token()}\n\na=b".encode(),
            f"{leaf(_HOLDER)[0]}: {leaf(_HOLDER)[1]}".encode(),
        ),
        _TOKEN_ERRORS,
    ),
    "Host and If-None-Match": Parser(
        _framed, (b'host: localhost:8080\nif-none-match: W/"a", "b"', b"host: [::1]:8080", b"host: 127.0.0.1")
    ),
}
