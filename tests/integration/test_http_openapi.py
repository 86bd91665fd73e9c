"""`/openapi.json` is complete, and true: each of its examples is sent to a running service and compared."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from signer.api import catalogue
from signer.api.errors import (
    HeadersTooLargeError,
    HeadTimeoutError,
    MalformedRequestError,
    MethodNotAllowedError,
    TooManyConnectionsError,
)
from signer.api.examples import SIGN
from signer.api.problems import CLIENT_GONE_STATUS, STATUS_BY_ERROR, status_of
from signer.policy import AUDITOR
from tests.integration.http_support import Entrance, allow, running
from tests.issuer import AUDIENCE, ISSUER, Issuer

PATHS = {
    "/v1/sign", "/v1/sign-batch", "/v1/verify", "/v1/signatures", "/v1/keys", "/v1/keys/{alias}",
    "/v1/keys/{alias}/public-key", "/.well-known/jwks.json", "/livez", "/readyz", "/metrics",
}  # fmt: skip
TRANSPORT = (
    MalformedRequestError,
    HeadersTooLargeError,
    HeadTimeoutError,
    TooManyConnectionsError,
    MethodNotAllowedError,
)
OPEN_TO_ALL = {"/.well-known/jwks.json", "/livez", "/readyz", "/metrics"}


@pytest.fixture(scope="module")
def entrance() -> Iterator[Entrance]:
    with running() as entrance:
        allow(entrance, roles=frozenset({AUDITOR}))
        # What the examples of a conflict and of a valid signature refer to.
        assert entrance.client.post("/v1/sign", json=SIGN["message"].request).status_code == 200
        yield entrance


@pytest.fixture(scope="module")
def document(entrance: Entrance) -> Any:
    return entrance.client.get("/openapi.json").json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every operation: method, path, description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_route_and_every_status_is_told(document: Any) -> None:
    """Each operation has a name, a summary, a tag and a reason for every status that the error table knows."""
    assert set(document["paths"]) == PATHS
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["tags"] for _, _, operation in operations(document))
    told = set(document["paths"]["/v1/sign"]["post"]["responses"])
    assert {str(int(status)) for status in STATUS_BY_ERROR.values() if status != CLIENT_GONE_STATUS} <= told
    assert "cdn" not in json.dumps(document)


def test_what_comes_before_the_routes_is_told_everywhere(document: Any) -> None:
    """Whichever route was meant: no request, one too slow or too large, too many connections, another method."""
    of_transport = {str(int(status_of(kind))) for kind in TRANSPORT}
    assert of_transport == {"400", "405", "408", "431", "503"}
    lacking = [path for _, path, operation in operations(document) if of_transport - operation["responses"].keys()]
    assert lacking == []


def test_what_may_be_asked_again_says_when(document: Any) -> None:
    """Each status that a retryable code has names `Retry-After`; each 401 says how, each 405 what else."""
    retryable = {str(entry.status) for entry in catalogue.entries() if entry.retryable and entry.status}
    wanted = dict.fromkeys(retryable, "Retry-After") | {"401": "WWW-Authenticate", "405": "Allow"}
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            assert wanted.get(status) in {None, *response.get("headers", {})}, (path, status)


def test_ways_to_prove_who_one_is_are_told(tmp_path: Path) -> None:
    """Where callers must prove it, every operation takes either way but for those that are open to all."""
    keys = tmp_path / "jwks.json"
    keys.write_bytes(Issuer().jwks())
    with running(jwt={"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": keys}) as entrance:
        document = entrance.client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {"mutualTLS": "mutualTLS", "bearer": "http"}
    assert {"mutualTLS": []} in document["security"]
    assert {"bearer": []} in document["security"]
    for _, path, operation in operations(document):
        assert (operation.get("security") == []) is (path in OPEN_TO_ALL)
        assert ("401" in operation["responses"]) is (path not in OPEN_TO_ALL)


def test_every_operation_has_an_example(document: Any) -> None:
    """But for two that answer with text."""
    without = {path for _, path, operation in operations(document) if not list(examples_of(operation))}
    assert without == {"/metrics", "/v1/keys/{alias}/public-key"}


def examples_of(operation: Any) -> Iterator[tuple[str, int, Any]]:
    """Every example of an answer: name, status, value."""
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            for name, example in content.get("examples", {}).items():
                yield name, int(status), example["value"]


def test_every_example_is_answered_as_it_says(entrance: Entrance, document: Any) -> None:
    """By status and by shape; and request, documented answer and real answer fit their schemas."""
    count = 0
    for method, path, operation in operations(document):
        for name, status, expected in examples_of(operation):
            request = _request(entrance, operation, name)
            query = {"transaction_id": "TXN-000001"} if path == "/v1/signatures" else {}
            where = path.format(alias="settlement")
            response = entrance.client.request(method, where, json=request, params=query)
            assert response.status_code == status, (path, name, response.text)
            assert _shape(response.json()) == _shape(expected), (path, name)
            schema = _schema(document, operation, status)
            for answer in (response.json(), expected):
                jsonschema_rs.validate(schema, answer)
            if status != 400 and request is not None:
                jsonschema_rs.validate(_request_schema(document, operation), request)
            count += 1
    assert count >= 14


def _request(entrance: Entrance, operation: Any, name: str) -> Any:
    contents = operation.get("requestBody", {}).get("content", {})
    if not contents:
        return None
    request = contents["application/json"]["examples"][name]["value"]
    if (operation["operationId"], name) == ("verify", "valid"):
        # No document can hold a signature by the key of whoever reads it.
        signed = entrance.client.post("/v1/sign", json=SIGN["message"].request).json()
        return {**request, "signature": signed["signature"]["value"]}
    return request


def _shape(value: Any) -> Any:
    """Reduce a document to its members and the types of its values; a list to the shapes that are in it."""
    if isinstance(value, dict):
        return {name: _shape(member) for name, member in value.items()}
    if isinstance(value, list):
        shapes = [_shape(member) for member in value]
        return [shape for index, shape in enumerate(shapes) if shape not in shapes[:index]]
    return type(value)


def _schema(document: Any, operation: Any, status: int) -> Any:
    (content,) = operation["responses"][str(status)]["content"].values()
    return {**content["schema"], "components": document["components"]}


def _request_schema(document: Any, operation: Any) -> Any:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return {**schema, "components": document["components"]}


@pytest.mark.parametrize("payload", ["AA==", "AAA=", "AAAA", "AAAAAA==", "AAAAAAA="])
def test_the_schema_takes_what_the_service_takes(document: Any, payload: str) -> None:
    """As base64."""
    assert jsonschema_rs.is_valid(_sign_schema(document), {"key": "settlement", "payload": payload})


@pytest.mark.parametrize("payload", ["", "AB==", "AAB=", "AA", "A===", "AA==AA==", "_A==", "AA==\n", 7])
def test_the_schema_refuses_what_the_service_refuses(entrance: Entrance, document: Any, payload: Any) -> None:
    """No stray bits, no other alphabet, not empty."""
    request = {"key": "settlement", "payload": payload}
    assert not jsonschema_rs.is_valid(_sign_schema(document), request)
    assert entrance.client.post("/v1/sign", json=request).status_code == 400


def _sign_schema(document: Any) -> Any:
    return _request_schema(document, document["paths"]["/v1/sign"]["post"])
