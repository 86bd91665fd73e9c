"""What the routes say about themselves in `/openapi.json`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel

from signer.api import idempotency
from signer.api.body import MEDIA_TYPE
from signer.api.keys import JWK_MEDIA_TYPE, PEM_MEDIA_TYPE
from signer.api.problems import PROBLEM_MEDIA_TYPE
from signer.ports import Signature
from signer.signatures import ALGORITHMS, DEFAULT_ALGORITHM


class SignAnswer(BaseModel):
    """A released signature; the same to the last byte whenever the same transaction is asked for again."""

    transaction_id: str | None = None
    """Absent where the request named none."""
    signature: Signature


class AlgorithmAnswer(BaseModel):
    """An algorithm under its KMS name and its JOSE name."""

    name: str
    jose: str


class KeyAnswer(BaseModel):
    """A key, as callers may know it."""

    alias: str
    label: str
    fingerprint: str
    algorithms: list[AlgorithmAnswer]


class KeysAnswer(BaseModel):
    """Every key."""

    keys: list[KeyAnswer]


class ReadyAnswer(BaseModel):
    """The service can sign."""

    ready: bool
    problems: list[str]
    warnings: list[str]


class Problem(BaseModel):
    """RFC 9457 problem document; `code` is stable, `retryable` says whether the same request may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {int(status): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _example(**content: Any) -> dict[str, Any]:
    return {"value": {"key": "settlement", "transaction_id": "TXN-000001", **content}}


_IDENTIFIER: Final = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"}
_TRANSACTION_ID: Final = (
    "Signed once: for ever bound to what it signed first. A key may be set to do without; `Idempotency-Key` then makes "
    "a request one that can be sent again."
)
_IDEMPOTENCY_KEY: Final = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": "Stands in for a `transaction_id` that is not given; each caller has its own.",
    "schema": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,128}$"},
}
_REPLAYED: Final = {
    idempotency.REPLAYED_HEADER: {
        "description": "`true` where the signature was made for an earlier request.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_SIGN_REQUEST: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["key"],
    "additionalProperties": False,
    "properties": {
        "key": {**_IDENTIFIER, "description": "The key's alias."},
        "transaction_id": {**_IDENTIFIER, "description": _TRANSACTION_ID},
        "algorithm": {"type": "string", "enum": list(ALGORITHMS), "default": DEFAULT_ALGORITHM.name},
        "message": {"type": ["object", "array"], "description": "JSON; its RFC 8785 form is signed."},
        "payload": {"type": "string", "contentEncoding": "base64", "minLength": 4},
        "digest": {"type": "string", "contentEncoding": "base64", "minLength": 44, "maxLength": 44},
    },
    "oneOf": [{"required": ["message"]}, {"required": ["payload"]}, {"required": ["digest"]}],
}
_SIGN_EXAMPLES: Final = {
    "message": _example(message={"amount": "1250.00", "currency": "EUR"}),
    "payload": _example(payload="PD94bWwgdmVyc2lvbj0iMS4wIj8+"),
    "digest": _example(digest="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", algorithm="RSASSA_PSS_SHA_256"),
}

SIGN: Final[dict[str, Any]] = {
    "operation_id": "sign",
    "summary": "Sign one transaction",
    "responses": {
        200: {"model": SignAnswer, "headers": _REPLAYED},
        **_problems(400, 401, 403, 404, 408, 409, 413, 415, 421, 429, 500, 502, 503, 504),
    },
    "openapi_extra": {
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {MEDIA_TYPE: {"schema": _SIGN_REQUEST, "examples": _SIGN_EXAMPLES}},
        },
    },
}
LIST_KEYS: Final[dict[str, Any]] = {
    "operation_id": "listKeys",
    "summary": "List the keys",
    "responses": {200: {"model": KeysAnswer}, **_problems(400, 401, 503)},
}
GET_PUBLIC_KEY: Final[dict[str, Any]] = {
    "operation_id": "getPublicKey",
    "summary": "Get a public key, as PEM or (by `Accept`) as JWK",
    "responses": {
        200: {"description": "The key", "content": {PEM_MEDIA_TYPE: {"schema": {"type": "string"}},
                                                    JWK_MEDIA_TYPE: {"schema": {"type": "object"}}}},
        **_problems(400, 401, 404, 503),
    },
    "openapi_extra": {"parameters": [{"name": "alias", "in": "path", "required": True, "schema": {"type": "string"}}]},
}  # fmt: skip
LIVE: Final[dict[str, Any]] = {"operation_id": "live", "summary": "Does the process answer?"}
READY: Final[dict[str, Any]] = {
    "operation_id": "ready",
    "summary": "Can it sign?",
    "responses": {200: {"model": ReadyAnswer}, **_problems(503)},
}
METRICS: Final[dict[str, Any]] = {
    "operation_id": "metrics",
    "summary": "Metrics in Prometheus' text format",
    "responses": {200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
}
