"""Requests and what they are answered, for the OpenAPI document; a test sends each one and compares."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from signer.api.problems import CATALOGUE_PATH

_KEY: Final = "settlement"
_LABEL: Final = "prod-settlement-key-2028"
_FINGERPRINT: Final = "sha256:6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090"
_MESSAGE: Final = {"amount": "1250.00", "currency": "EUR", "creditor": "DE89370400440532013000"}
_PAYLOAD: Final = "PD94bWwgdmVyc2lvbj0iMS4wIj8+"
_DIGEST: Final = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
_SIGNATURE: Final = "bm90IGEgc2lnbmF0dXJlLCBidXQgYXMgbG9uZyBhcyBpdCBtYXkgYmU="
_AUDIT_ID: Final = "5c1a4be0d2f7-0000000000000042"
_REQUEST_ID: Final = "6f1e3a52-2f3c-4c0a-9d3e-1b5a7f0c2d11"
_PKCS1: Final = "RSASSA_PKCS1_V1_5_SHA_256"
_PSS: Final = "RSASSA_PSS_SHA_256"


@dataclass(frozen=True, slots=True)
class Example:
    """A request's body, or none, and the status and body of its answer."""

    summary: str
    answer: Any
    request: Any = None
    status: int = 200


Examples = Mapping[str, Example]


def _signature(algorithm: str = _PKCS1) -> dict[str, str]:
    return {
        "algorithm": algorithm,
        "key_alias": _KEY,
        "key_label": _LABEL,
        "key_fingerprint": _FINGERPRINT,
        "digest": _DIGEST,
        "value": _SIGNATURE,
        "signed_at": "2028-03-08T12:00:00.123456Z",
        "audit_id": _AUDIT_ID,
    }


def _problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"{CATALOGUE_PATH}#{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
        "request_id": _REQUEST_ID,
        **more,
    }


def _signed(transaction_id: str, algorithm: str = _PKCS1) -> dict[str, Any]:
    jose = "PS256" if algorithm == _PSS else "RS256"
    return {"transaction_id": transaction_id, "jose_algorithm": jose, "signature": _signature(algorithm)}


SIGN: Final[Examples] = {
    "message": Example(
        "A JSON message",
        _signed("TXN-000001"),
        {"key": _KEY, "transaction_id": "TXN-000001", "message": _MESSAGE},
    ),
    "payload": Example(
        "Bytes",
        _signed("TXN-000002"),
        {"key": _KEY, "transaction_id": "TXN-000002", "payload": _PAYLOAD},
    ),
    "digest": Example(
        "A digest, with PSS",
        _signed("TXN-000003", _PSS),
        {"key": _KEY, "transaction_id": "TXN-000003", "digest": _DIGEST, "algorithm": _PSS},
    ),
    "dry_run": Example(
        "Would this be signed?",
        {
            "transaction_id": "TXN-000006",
            "jose_algorithm": "RS256",
            "dry_run": {
                "outcome": "signed",
                "algorithm": _PKCS1,
                "key_alias": _KEY,
                "key_label": _LABEL,
                "key_fingerprint": _FINGERPRINT,
                "digest": _DIGEST,
                "audit_id": _AUDIT_ID,
            },
        },
        {"key": _KEY, "transaction_id": "TXN-000006", "message": _MESSAGE, "dry_run": True},
    ),
    "conflict": Example(
        "Other content under an id that was signed",
        _problem(
            409,
            "transaction_conflict",
            "this transaction is bound to another digest or algorithm",
            audit_id=_AUDIT_ID,
        ),
        {"key": _KEY, "transaction_id": "TXN-000001", "message": {**_MESSAGE, "amount": "9999.00"}},
        409,
    ),
    "not_authorised": Example(
        "An alias that is not granted, whether or not there is such a key",
        _problem(403, "not_authorised", "this caller may not use this key", audit_id=_AUDIT_ID),
        {"key": "settlment", "transaction_id": "TXN-000004", "message": _MESSAGE},
        403,
    ),
    "unknown_member": Example(
        "A member that nothing would sign",
        _problem(400, "invalid_input", "an unknown member stands beside the known ones"),
        {"key": _KEY, "transaction_id": "TXN-000005", "message": _MESSAGE, "note": "urgent"},
        400,
    ),
}
SIGN_BATCH: Final[Examples] = {
    "partly": Example(
        "Three items, of which one cannot be signed",
        {
            "dry_run": False,
            "signed": 2,
            "failed": 1,
            "results": [
                {"reference": "line-1", **_signed("TXN-000011")},
                {"reference": "line-2", **_signed("TXN-000012")},
                {
                    "reference": "line-3",
                    "transaction_id": "TXN-000013",
                    "error": {
                        "type": f"{CATALOGUE_PATH}#invalid_base64",
                        "status": 400,
                        "code": "invalid_base64",
                        "retryable": False,
                        "detail": "`payload` is not standard, padded base64 of at least one byte",
                    },
                },
            ],
        },
        {
            "key": _KEY,
            "transactions": [
                {"reference": "line-1", "transaction_id": "TXN-000011", "message": _MESSAGE},
                {"reference": "line-2", "transaction_id": "TXN-000012", "payload": _PAYLOAD},
                {"reference": "line-3", "transaction_id": "TXN-000013", "payload": "not base64"},
            ],
        },
    ),
}
VERIFY: Final[Examples] = {
    "valid": Example(
        "A signature of this service",
        {
            "valid": True,
            "key_alias": _KEY,
            "key_label": _LABEL,
            "key_fingerprint": _FINGERPRINT,
            "algorithm": _PKCS1,
            "jose_algorithm": "RS256",
            "digest": _DIGEST,
            "tried": [{"key_label": _LABEL, "key_fingerprint": _FINGERPRINT}],
            "audit_id": _AUDIT_ID,
        },
        {"key": _KEY, "message": _MESSAGE, "signature": _SIGNATURE},
    ),
    "invalid": Example(
        "Something else",
        {
            "valid": False,
            "key_alias": _KEY,
            "key_label": None,
            "key_fingerprint": None,
            "algorithm": _PSS,
            "jose_algorithm": "PS256",
            "digest": _DIGEST,
            "tried": [{"key_label": _LABEL, "key_fingerprint": _FINGERPRINT}],
            "audit_id": _AUDIT_ID,
        },
        {"key": _KEY, "digest": _DIGEST, "algorithm": _PSS, "signature": _SIGNATURE},
    ),
}
SEARCH: Final[Examples] = {
    "found": Example(
        "What was signed for a transaction",
        {
            "signatures": [
                {
                    "transaction_id": "TXN-000001",
                    "key_alias": _KEY,
                    "caller": "http:spiffe://bank.example/payments",
                    "algorithm": _PKCS1,
                    "jose_algorithm": "RS256",
                    "digest": _DIGEST,
                    "signature": _signature(),
                }
            ],
            "audit_id": _AUDIT_ID,
        },
    ),
}
_KEY_DESCRIPTION: Final = {
    "alias": _KEY,
    "label": _LABEL,
    "fingerprint": _FINGERPRINT,
    "algorithms": [{"name": _PKCS1, "jose": "RS256"}, {"name": _PSS, "jose": "PS256"}],
    "versions": [
        {"label": _LABEL, "fingerprint": _FINGERPRINT, "state": "active", "active_from": None, "verify_until": None}
    ],
}
_JWK: Final = {"kty": "RSA", "use": "sig", "kid": _FINGERPRINT, "n": "u1SU1LfVLPHCozMxH2Mo4lgOEePz...", "e": "AQAB"}
LIST_KEYS: Final[Examples] = {"keys": Example("The keys", {"keys": [_KEY_DESCRIPTION], "audit_id": _AUDIT_ID})}
GET_KEY: Final[Examples] = {"key": Example("One key", {**_KEY_DESCRIPTION, "audit_id": _AUDIT_ID})}
GET_KEY_SET: Final[Examples] = {"key_set": Example("The public keys", {"keys": [_JWK]})}
LIVE: Final[Examples] = {"live": Example("It does", {"live": True})}
READY: Final[Examples] = {"ready": Example("It can", {"ready": True, "problems": [], "warnings": []})}
