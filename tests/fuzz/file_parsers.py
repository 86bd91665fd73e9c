"""Parsers of the files that operators give: settings, policy, kill switch, latch, PEM files, signed batches."""

import json
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry

from signer import logs, settings
from signer.api.jwks import KeySource
from signer.api.tls import TlsMaterial
from signer.errors import ConfigurationError, InvalidInputError
from signer.hsm.latch import Latch
from signer.http_settings import JwtSettings, TlsSettings
from signer.metrics import Metrics
from signer.policy_file import parse_policy
from signer.policy_kills import parse_kills
from signer.signatures import public_key_pem
from signer.verification import read_public_keys, verify_document
from tests.fuzz.mutations import CANARY
from tests.fuzz.parser import Parser, directory, dumped, file_with
from tests.pki import Authority, Holder, server_certificate
from tests.unit.policies import POLICY
from tests.unit.test_verification import KEY, KEYS, signed

_METRICS: Final = Metrics(CollectorRegistry())
_ROOT: Final = Authority("Root")
_SERVER: Final = server_certificate(_ROOT)
_MIDDLE: Final = Authority("Middle", _ROOT)
_CRLS: Final = _ROOT.crl(_SERVER) + _MIDDLE.crl()
_KILL: Final = {"by": "alice@bank.example", "reason": "it signed what nobody sent", "since": "2028-03-08T12:00:00Z"}
_SETTINGS: Final = b"""
signing_timeout_s = 30
[hsm]
module = "/usr/lib/softhsm/libsofthsm2.so"
token = "dev"
pin = "user:password"
[keys.settlement]
callers = ["http:loopback"]
versions = [
  {label = "key-1", verify_until = 2028-06-01T00:00:00Z},
  {label = "key-2", active_from = 2028-03-01T00:00:00Z, waive = ["local"]},
]
[ledger]
path = "ledger.sqlite3"
[audit]
directory = "audit"
[sqs]
inbound_url = "https://sqs/in"
outbound_url = "https://sqs/out"
quarantine_url = "https://sqs/set-aside"
payloads = {bucket = "bucket-1", accept = ["bucket-1/inbound/"], bucket_owner = "123456789012"}
[http]
host = "127.0.0.1"
tls = {certificate = "server.pem", key = "server.key", client_ca = "ca.pem", client_crl = "crl.pem"}
proxy = {networks = ["10.0.1.0/24", "fd00::/8"]}
jwt = {issuer = "https://issuer", audience = "signer", jwks_url = "https://issuer/jwks", algorithms = ["ES256"]}
health = {host = "::1", port = 8081}
"""


def _settings(data: bytes) -> object:
    return settings.load(file_with(data, "signer.toml"))


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def _environment(data: bytes) -> object:
    """Read a section of the settings from a variable, which can hold everything but a null octet."""
    with _variable("SIGNER_HTTP", _without_nulls(data).decode("utf-8", "surrogateescape")):
        return settings.load(file_with(_SETTINGS, "signer.toml"))


def _without_nulls(data: bytes) -> bytes:
    return data.replace(b"\0", b"")


def _names_canary(document: Any) -> bool:
    """Tell whether the canary stands as the name of a member: that is what an operator is told."""
    if isinstance(document, dict):
        return any(CANARY in name or _names_canary(member) for name, member in document.items())
    return isinstance(document, list) and any(map(_names_canary, document))


def _as_member(data: bytes) -> bool:
    try:
        return _names_canary(tomllib.loads(data.decode()))
    except ValueError:
        return False


def _as_json_member(data: bytes) -> bool:
    try:
        return _names_canary(json.loads(_without_nulls(data)))
    except ValueError:
        return False


def _tls(**contents: bytes) -> object:
    certificate, key = _SERVER.write(directory(), "server")
    given = {"certificate": certificate, "key": key}
    given |= {name: file_with(content, f"{name}.pem") for name, content in contents.items()}
    return TlsMaterial(TlsSettings(**given), _METRICS.auth, logs.get("fuzz"), lambda: datetime.now(UTC))


def _pem_of(holder: Holder) -> bytes:
    return holder.pem.encode()


def _signed_batch() -> bytes:
    items: list[dict[str, Any]] = [
        {"transaction_id": "TXN-1", "message": {"amount": "1.00"}},
        {"transaction_id": "TXN-2", "payload": "AA=="},
    ]
    transactions = [signed(item) for item in items]
    return dumped({"schema": "signed-settlement-batch/1", "batch_id": "B", "key": "k", "transactions": transactions})


PARSERS: Final[dict[str, Parser]] = {
    "settings": Parser(_settings, (_SETTINGS,), (ConfigurationError,), _as_member),
    "settings in a variable": Parser(
        _environment,
        (dumped({"port": 8080, "jwt": {"issuer": "https://issuer", "audience": "signer"}, "host": "::1"}),),
        (ConfigurationError,),
        _as_json_member,
    ),
    "policy": Parser(parse_policy, (POLICY.encode(),), (ConfigurationError,)),
    "kill file": Parser(
        parse_kills,
        (
            dumped({"schema": "signer-kills/1", "keys": {"settlement": _KILL}, "callers": {"dns:x": _KILL}}),
            dumped({"schema": "signer-kills/1", "revived": {"key settlement": _KILL}}),
        ),
        (ConfigurationError,),
    ),
    "latch": Parser(
        lambda data: Latch(file_with(data, "latch.json")).read(),
        (dumped({"reason": "two in a row", "since": "2028-03-08T12:00:00Z", "cleared_by": "alice@bank.example"}),),
        (ConfigurationError,),
    ),
    "server's certificate": Parser(lambda data: _tls(certificate=data), (_pem_of(_SERVER),), (ConfigurationError,)),
    "client authorities": Parser(
        lambda data: _tls(client_ca=data, client_crl=_CRLS),
        (_ROOT.pem, _ROOT.pem + _MIDDLE.pem),
        (ConfigurationError,),
    ),
    "revocation lists": Parser(
        lambda data: _tls(client_ca=_ROOT.pem, client_crl=data), (_ROOT.crl(_SERVER), _CRLS), (ConfigurationError,)
    ),
    "issuer's authorities": Parser(
        lambda data: KeySource(
            JwtSettings(
                issuer="https://issuer",
                audience="signer",
                jwks_url="https://issuer/jwks",
                jwks_ca=file_with(data, "jwks-ca.pem"),
            )
        ),
        (_ROOT.pem,),
        (ConfigurationError,),
    ),
    "public key": Parser(
        lambda data: read_public_keys([data]), (public_key_pem(KEY.public_key()),), (InvalidInputError,)
    ),
    "signed batch": Parser(lambda data: verify_document(data, KEYS), (_signed_batch(),), (InvalidInputError,)),
}
