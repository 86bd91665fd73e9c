"""What the routes say about themselves in `/openapi.json`."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from signer.api import examples, idempotency, schemas
from signer.api.body import MEDIA_TYPE
from signer.api.errors import (
    HeadersTooLargeError,
    HeadTimeoutError,
    MalformedRequestError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    TooManyConnectionsError,
)
from signer.api.examples import Examples
from signer.api.frame import REQUEST_ID_HEADER
from signer.api.keys import JWK_MEDIA_TYPE, JWK_SET_MEDIA_TYPE, PEM_MEDIA_TYPE
from signer.api.problems import PROBLEM_MEDIA_TYPE, status_of
from signer.errors import SignerError

Operation = dict[str, Any]

_ANYWHERE: Final = tuple(
    status_of(kind)
    for kind in (
        MalformedRequestError,
        HeadTimeoutError,
        HeadersTooLargeError,
        TooManyConnectionsError,
        MethodNotAllowedError,
        MisdirectedRequestError,
        SignerError,
    )
)
_WITH_BODY: Final = (413, 415)
_SIGNING: Final = (401, 403, 404, 409, 429, *_WITH_BODY, 502, 504)
_REQUEST_ID: Final = {
    REQUEST_ID_HEADER: {
        "description": "Finds the request in the service's log; absent where there was no request yet.",
        "schema": {"type": "string", "format": "uuid"},
    }
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait, where the problem is `retryable`.",
        "schema": {"type": "integer"},
    }
}
_AUTHENTICATE: Final = {
    "WWW-Authenticate": {
        "description": "How one may authenticate, where the credentials are at fault.",
        "schema": {"type": "string"},
    }
}
_HEADERS: Final[Mapping[int, Any]] = {
    400: _AUTHENTICATE,
    401: _AUTHENTICATE,
    405: {"Allow": {"description": "The methods by which the path is served.", "schema": {"type": "string"}}},
    **dict.fromkeys((408, 409, 429, 502, 503, 504), _RETRY_AFTER),
}
_REPLAYED: Final = {
    idempotency.REPLAYED_HEADER: {
        "description": "`true` where all of it was signed for earlier requests, and nothing for this one.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
_CACHED: Final = {
    "ETag": {"description": "Names this very answer.", "schema": {"type": "string"}},
    "Cache-Control": {"description": "How long it may be kept.", "schema": {"type": "string"}},
}
_VARIED: Final = {"Vary": {"description": "What the form of the answer depends on.", "schema": {"type": "string"}}}
_IDEMPOTENCY_KEY: Final = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": "Stands in for a `transaction_id` that is not given; each caller has its own.",
    "schema": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,128}$"},
}
_IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of what one has already.",
    "schema": {"type": "string"},
}
_ALIAS: Final = {
    "name": "alias",
    "in": "path",
    "required": True,
    "description": "The key's alias.",
    "schema": schemas.IDENTIFIER,
    "example": "settlement",
}
SECURITY_SCHEMES: Final = {
    "mutualTLS": {"type": "mutualTLS", "description": "A client certificate, shown to the service or to its balancer."},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An OAuth 2 access token."},
}
_CREDENTIALS: Final[list[dict[str, list[str]]]] = [{"mutualTLS": []}, {"bearer": []}, {"mutualTLS": [], "bearer": []}]


def _operation(
    name: str, summary: str, answer: Mapping[str, Any], example: Examples, statuses: Iterable[int], **more: Any
) -> Operation:
    """Describe an operation: `answer` is the content of its 200, `more` goes into the document as it is."""
    headers, problem = _REQUEST_ID | more.pop("headers", {}), more.pop("problem", schemas.Problem)
    content = {media_type: {"schema": schema, **_answers(example, 200)} for media_type, schema in answer.items()}
    known = sorted({*statuses, *_ANYWHERE})
    return {
        "operation_id": name,
        "summary": summary,
        "response_description": "Done",
        "responses": {
            200: {"description": "Done", "headers": headers, "content": content},
            **{status: _problem(status, problem, example) for status in known},
        },
        "openapi_extra": more,
    }


def _problem(status: int, shape: type[BaseModel], example: Examples) -> dict[str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": schemas.reference(shape), **_answers(example, status)}}
    headers = _REQUEST_ID | _HEADERS.get(status, {})
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": content}


def _answers(example: Examples, status: int) -> dict[str, Any]:
    found = {
        name: {"summary": item.summary, "value": item.answer} for name, item in example.items() if item.status == status
    }
    return {"examples": found} if found else {}


def _json(answer: type[BaseModel], media_type: str = MEDIA_TYPE) -> dict[str, Any]:
    return {media_type: schemas.reference(answer)}


def _body(schema: schemas.Schema, example: Examples) -> dict[str, Any]:
    named = {name: {"summary": item.summary, "value": item.request} for name, item in example.items()}
    return {"required": True, "content": {MEDIA_TYPE: {"schema": schema, "examples": named}}}


SIGN: Final = _operation(
    "sign",
    "Sign one transaction",
    _json(schemas.SignAnswer),
    examples.SIGN,
    _SIGNING,
    tags=["Signing"],
    headers=_REPLAYED,
    parameters=[_IDEMPOTENCY_KEY],
    requestBody=_body(schemas.SIGN_REQUEST, examples.SIGN),
)


def sign_batch(max_items: int) -> Operation:
    """Describe the signing of batches of up to so many transactions."""
    return _operation(
        "signBatch",
        "Sign many transactions; each is answered for itself",
        _json(schemas.BatchAnswer),
        examples.SIGN_BATCH,
        _SIGNING,
        tags=["Signing"],
        headers=_REPLAYED,
        problem=schemas.BatchProblem,
        parameters=[_IDEMPOTENCY_KEY],
        requestBody=_body(schemas.sign_batch_request(max_items), examples.SIGN_BATCH),
    )


VERIFY: Final = _operation(
    "verify",
    "Is this signature valid?",
    _json(schemas.VerifyAnswer),
    examples.VERIFY,
    (401, 403, 404, 429, *_WITH_BODY, 504),
    tags=["Signing"],
    requestBody=_body(schemas.VERIFY_REQUEST, examples.VERIFY),
)
SEARCH: Final = _operation(
    "findSignatures",
    "Was this signed, when, with which key, for whom? For callers with the role `auditor`",
    _json(schemas.SearchAnswer),
    examples.SEARCH,
    (401, 403, 504),
    tags=["Signing"],
    parameters=[
        {
            "name": "transaction_id",
            "in": "query",
            "required": False,
            "description": "Exactly one of the two is to be given.",
            "schema": schemas.IDENTIFIER,
            "example": "TXN-000001",
        },
        {
            "name": "digest",
            "in": "query",
            "required": False,
            "description": "SHA-256, in standard padded base64; its `+` and `/` percent-encoded.",
            "schema": schemas.SEARCH_DIGEST,
        },
    ],
)
LIST_KEYS: Final = _operation(
    "listKeys",
    "List the keys that the caller may know of",
    _json(schemas.KeysAnswer),
    examples.LIST_KEYS,
    (401, 403, 504),
    tags=["Keys"],
)
GET_KEY: Final = _operation(
    "getKey",
    "Describe a key and its versions",
    _json(schemas.KeyAnswer),
    examples.GET_KEY,
    (401, 403, 404, 504),
    tags=["Keys"],
    parameters=[_ALIAS],
)
GET_PUBLIC_KEY: Final = _operation(
    "getPublicKey",
    "Get the public key that signs now, as PEM or (by `Accept`) as JWK",
    {PEM_MEDIA_TYPE: {"type": "string"}, **_json(schemas.Jwk, JWK_MEDIA_TYPE)},
    {},
    (401, 403, 404, 504),
    tags=["Keys"],
    headers=_VARIED,
    parameters=[_ALIAS],
)
GET_KEY_SET: Final = _operation(
    "getKeySet",
    "Get every public key that signs, is about to, or did and is still believed",
    _json(schemas.JwkSet, JWK_SET_MEDIA_TYPE),
    examples.GET_KEY_SET,
    (),
    tags=["Keys"],
    headers=_CACHED,
    parameters=[_IF_NONE_MATCH],
    security=[],
)
GET_KEY_SET["responses"][304] = {"description": "The client's copy is the same", "headers": _REQUEST_ID | _CACHED}
LIVE: Final = _operation(
    "live", "Does the process answer?", _json(schemas.LiveAnswer), examples.LIVE, (), tags=["Operation"], security=[]
)
READY: Final = _operation(
    "ready",
    "Can it sign?",
    _json(schemas.ReadyAnswer),
    examples.READY,
    (),
    tags=["Operation"],
    problem=schemas.NotReadyProblem,
    security=[],
)
METRICS: Final = _operation(
    "metrics",
    "Metrics in Prometheus' text format",
    {"text/plain": {"type": "string"}},
    {},
    (),
    tags=["Operation"],
    security=[],
)


def complete(document: dict[str, Any], routes: Iterable[BaseRoute], *, authenticates: bool) -> dict[str, Any]:
    """Add what the routes share: schemas, and how callers prove who they are if they have to."""
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                # Once more as it was given: FastAPI takes out what is null, also where an example says null.
                responses = {str(status): response for status, response in route.responses.items()}
                document["paths"][route.path][method.lower()] |= {"responses": responses, **(route.openapi_extra or {})}
    document["components"] = {"schemas": schemas.components(), "securitySchemes": SECURITY_SCHEMES}
    document["security"] = _CREDENTIALS if authenticates else []
    return document
