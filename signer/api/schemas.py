"""The shapes of requests and answers, for the OpenAPI document; a request that fits its schema is well-formed."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from signer.ports import Signature
from signer.signatures import ALGORITHMS, DEFAULT_ALGORITHM

Schema = Mapping[str, Any]

_SAFE_INTEGER: Final = 2**53 - 1
# Standard base64 of at least one byte, with padding and without stray bits behind the end.
_BASE64_QUADS: Final = "(?:[A-Za-z0-9+/]{4})"
_BASE64_END: Final = "(?:[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)"
_BASE64: Final = f"^(?:{_BASE64_QUADS}+{_BASE64_END}?|{_BASE64_END})$"
_DIGEST_PATTERN: Final = "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
_JSON_VALUE: Final = "#/components/schemas/JsonValue"
IDENTIFIER: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"}

_TRANSACTION_ID: Final = (
    "Signed once: for ever bound to what it signed first. A key may be set to do without; `Idempotency-Key` then makes "
    "a request one that can be sent again."
)
_CONTENT: Final[Schema] = {
    "message": {
        "type": ["object", "array"],
        "items": {"$ref": _JSON_VALUE},
        "additionalProperties": {"$ref": _JSON_VALUE},
        "description": "JSON; its canonical form (RFC 8785) is signed, so spacing and order do not matter.",
    },
    "payload": {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": _BASE64,
        "description": "Bytes in standard padded base64; signed as they are.",
    },
    "digest": {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": _DIGEST_PATTERN,
        "description": "SHA-256 of what is to be signed, 32 bytes in standard padded base64.",
    },
}
_ONE_CONTENT: Final = [{"required": [name]} for name in _CONTENT]
_KEY: Final[Schema] = {**IDENTIFIER, "description": "The key's alias."}
_ALGORITHM: Final[Schema] = {
    "type": "string",
    "enum": list(ALGORITHMS),
    "default": DEFAULT_ALGORITHM.name,
    "description": "By its AWS KMS name; in JOSE: "
    + ", ".join(f"`{algorithm.jose}` is `{algorithm.name}`" for algorithm in ALGORITHMS.values())
    + ".",
}


_DRY_RUN: Final[Schema] = {
    "type": "boolean",
    "default": False,
    "description": "Do all but sign: policy, limits, keys and ledger answer, on record; nothing stays claimed.",
}


def _request(required: list[str], properties: Mapping[str, Any], **more: Any) -> Schema:
    return {
        "type": "object",
        "required": required,
        "additionalProperties": False,
        "properties": dict(properties),
        **more,
    }


SIGN_REQUEST: Final = _request(
    ["key"],
    {
        "key": _KEY,
        "transaction_id": {**IDENTIFIER, "description": _TRANSACTION_ID},
        "algorithm": _ALGORITHM,
        "dry_run": _DRY_RUN,
        **_CONTENT,
    },
    oneOf=_ONE_CONTENT,
)
_BATCH_ITEM: Final = _request(
    [],
    {
        "reference": {**IDENTIFIER, "description": "The caller's own name for the item; comes back with its result."},
        "transaction_id": {**IDENTIFIER, "description": _TRANSACTION_ID},
        **_CONTENT,
    },
    oneOf=_ONE_CONTENT,
)


def sign_batch_request(max_items: int) -> Schema:
    """Give the schema of a batch of up to so many."""
    anything = {"$ref": _JSON_VALUE, "description": "Anything else is answered with an error in its place."}
    item = {"anyOf": [_BATCH_ITEM, anything]}
    items = {"type": "array", "minItems": 1, "maxItems": max_items, "items": item}
    properties = {"key": _KEY, "algorithm": _ALGORITHM, "dry_run": _DRY_RUN, "transactions": items}
    return _request(["key", "transactions"], properties)


VERIFY_REQUEST: Final = _request(
    ["key", "signature"],
    {
        "key": _KEY,
        "algorithm": _ALGORITHM,
        **_CONTENT,
        "signature": {
            "type": "string",
            "contentEncoding": "base64",
            "pattern": _BASE64,
            "description": "The `value` of a signature.",
        },
    },
    oneOf=_ONE_CONTENT,
)
JSON_VALUE: Final[Schema] = {
    "description": "Any JSON value; numbers that a double would change are refused.",
    "anyOf": [
        {"type": ["null", "boolean", "string"]},
        {"type": "integer", "minimum": -_SAFE_INTEGER, "maximum": _SAFE_INTEGER},
        {"type": "number", "minimum": -_SAFE_INTEGER, "maximum": _SAFE_INTEGER},
        {"type": "array", "items": {"$ref": _JSON_VALUE}},
        {"type": "object", "additionalProperties": {"$ref": _JSON_VALUE}},
    ],
}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DryRun(_Answer):
    """What would have become of a transaction, with which key, had it not been tried only."""

    outcome: Literal["signed", "replayed"]
    algorithm: str
    key_alias: str
    key_label: str
    key_fingerprint: str
    digest: str
    audit_id: str


class SignAnswer(_Answer):
    """A released signature; the same to the last byte whenever the same transaction is asked for again.

    `dry_run` stands in its place where that was asked for.
    """

    transaction_id: str | None = None
    """Absent where the request named none."""
    jose_algorithm: str
    signature: Signature | None = None
    dry_run: DryRun | None = None


class ItemError(_Answer):
    """Why an item was not signed: the members of a problem that concern it alone."""

    type: str
    status: int
    code: str
    retryable: bool
    detail: str
    audit_id: str | None = None


class BatchResult(_Answer):
    """What became of one item: `signature`, `dry_run` or `error`."""

    reference: str | None = None
    transaction_id: str | None = None
    jose_algorithm: str | None = None
    signature: Signature | None = None
    dry_run: DryRun | None = None
    error: ItemError | None = None


class BatchAnswer(_Answer):
    """A result for each item, in the order of the request, and how many of each kind there are."""

    dry_run: bool
    signed: int
    """Those signed before among them."""
    failed: int
    results: list[BatchResult]


class VersionTried(_Answer):
    """A version of a key that a signature was checked with."""

    key_label: str
    key_fingerprint: str | None


class VerifyAnswer(_Answer):
    """Whether a signature is valid, and by which version of the key; if it is not, by none of `tried`."""

    valid: bool
    key_alias: str
    key_label: str | None
    key_fingerprint: str | None
    algorithm: str
    jose_algorithm: str
    digest: str
    tried: list[VersionTried]
    audit_id: str


class FoundSignature(_Answer):
    """What was claimed, for whom, and its signature; null while there is none."""

    transaction_id: str
    key_alias: str
    caller: str | None
    """Who asked first; null in what an earlier version kept."""
    algorithm: str
    jose_algorithm: str
    digest: str
    signature: Signature | None


class SearchAnswer(_Answer):
    """What the ledger knows, at most 100 for a digest."""

    signatures: list[FoundSignature]
    audit_id: str


class AlgorithmAnswer(_Answer):
    """An algorithm under its KMS name and its JOSE name."""

    name: str
    jose: str


class VersionAnswer(_Answer):
    """One of the keys that an alias stands for in the course of time; moments are RFC 3339, UTC."""

    label: str
    fingerprint: str | None
    state: Literal["upcoming", "active", "retired"]
    active_from: str | None
    verify_until: str | None


class KeyDescription(_Answer):
    """A key, as callers may know it; `label` and `fingerprint` are those of the version that signs now."""

    alias: str
    label: str | None
    fingerprint: str | None
    algorithms: list[AlgorithmAnswer]
    versions: list[VersionAnswer]


class KeyAnswer(KeyDescription):
    """One key."""

    audit_id: str


class KeysAnswer(_Answer):
    """Every key that the caller may know of."""

    keys: list[KeyDescription]
    audit_id: str


class Jwk(BaseModel):
    """A public key (RFC 7517); `kid` is its fingerprint."""

    kty: Literal["RSA"]
    use: Literal["sig"]
    kid: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    n: str
    e: str


class JwkSet(BaseModel):
    """Every public key whose signatures are to be believed, or soon will be."""

    keys: list[Jwk]


class LiveAnswer(_Answer):
    """The process answers."""

    live: Literal[True]


class ReadyAnswer(_Answer):
    """The service can sign."""

    ready: Literal[True]
    problems: list[str]
    warnings: list[str]


class Problem(_Answer):
    """RFC 9457 problem document; `code` is stable, `retryable` says whether the same request may succeed later."""

    type: str
    """Leads to the entry of the error catalogue."""
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    request_id: str | None
    audit_id: str | None = None
    """Of the audit record that tells of the refusal, where there is one for this request alone."""


class BatchProblem(Problem):
    """What keeps all items of a batch from being signed."""

    results: list[BatchResult] = Field(default_factory=list)
    """Absent where the items were not looked at."""


class NotReadyProblem(Problem):
    """Why the service cannot sign now."""

    problems: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)


_MODELS: Final = (
    SignAnswer, BatchAnswer, VerifyAnswer, SearchAnswer, KeyAnswer, KeysAnswer, Jwk, JwkSet, LiveAnswer, ReadyAnswer,
    Problem, BatchProblem, NotReadyProblem,
)  # fmt: skip
SEARCH_DIGEST: Final[Schema] = {"type": "string", "contentEncoding": "base64", "pattern": _DIGEST_PATTERN}
_PLACE: Final = "#/components/schemas/{model}"


def reference(model: type[BaseModel]) -> Schema:
    """Point at the schema of `model` among the `components`."""
    return {"$ref": _PLACE.format(model=model.__name__)}


def components() -> dict[str, Schema]:
    """Give the schemas that others point at, by name."""
    _, whole = models_json_schema([(model, "serialization") for model in _MODELS], ref_template=_PLACE)
    return {**whole["$defs"], "JsonValue": JSON_VALUE}
