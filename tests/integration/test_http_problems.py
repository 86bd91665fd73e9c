"""Every refusal is one problem document with a stable code; none of them says back what came in."""

import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

import signer
from signer.api.handshake_errors import HandshakeError
from signer.api.problems import PROBLEM_MEDIA_TYPE, STATUS_BY_ERROR, Problem, status_of
from signer.errors import (
    AuditUnavailableError,
    ClaimLostError,
    DeadlineExceededError,
    HsmUnavailableError,
    LedgerUnavailableError,
    PoolExhaustedError,
    SignerError,
)
from tests.integration.http_support import FORBIDDEN_ALIAS, Entrance, running, signing_request

PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "retryable", "request_id"}


def error_classes() -> Iterator[type[SignerError]]:
    """Every class of the error tree, but for what the other entrance says to itself, and how handshakes fail."""
    for module in pkgutil.walk_packages(signer.__path__, "signer."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes = [SignerError]
    while classes:
        inner = classes.pop().__subclasses__()
        classes += inner
        ours = (cls for cls in inner if cls.__module__.startswith("signer.") and ".sqs." not in cls.__module__)
        yield from (cls for cls in ours if not issubclass(cls, HandshakeError))


def test_every_error_has_a_status() -> None:
    """The table decides about every class of the tree, itself or through an ancestor that is not the root."""
    undecided = [cls.__name__ for cls in error_classes() if not set(cls.__mro__) & set(STATUS_BY_ERROR)]
    assert SignerError not in STATUS_BY_ERROR
    assert undecided == []


def test_what_may_be_tried_again_is_never_called_the_callers_fault_for_good() -> None:
    """Retryable and status agree: a permanent refusal is 4xx or 500, and a 503 or 504 may always be tried again."""
    for cls in error_classes():
        status = status_of(cls)
        assert not cls.retryable or status in {408, 409, 429, 499, 502, 503, 504}, cls
        assert cls.retryable or status not in {502, 503, 504}, cls


def test_an_error_nobody_listed_is_a_defect() -> None:
    """The bare root of the tree is a 500."""
    assert Problem.of(SignerError("unheard of")).status == 500


def assert_problem(response: httpx.Response, status: int, code: str, *, retryable: bool) -> dict[str, Any]:
    """Check one problem document, and give it."""
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert response.headers.get("Retry-After") == ("1" if retryable else None)
    assert problem["retryable"] is retryable
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert set(problem) >= PROBLEM_MEMBERS
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "signature" not in problem
    return problem


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"key": None}, 400, "invalid_input"),
        ({"surplus": 1}, 400, "invalid_input"),
        ({"transaction_id": "with space"}, 400, "invalid_input"),
        ({"message": None}, 400, "invalid_transaction"),
        ({"payload": "eA=="}, 400, "invalid_transaction"),
        ({"message": "text"}, 400, "invalid_transaction"),
        ({"message": None, "payload": "eA"}, 400, "invalid_base64"),
        ({"message": None, "digest": "eA=="}, 400, "invalid_transaction"),
        ({"message": {"amount": 2**53}}, 400, "invalid_json"),
        ({"algorithm": "RSASSA_PKCS1_V1_5_SHA_1"}, 400, "unknown_algorithm"),
        ({"key": "unheard-of"}, 404, "unknown_key"),
        ({"key": FORBIDDEN_ALIAS}, 403, "not_authorised"),
    ],
)
def test_what_can_never_be_signed_is_refused_for_good(changes: dict[str, Any], status: int, code: str) -> None:
    """Each kind of bad request has its code, is not retryable, and reaches no key."""
    with running() as entrance:
        assert_problem(entrance.sign(**changes), status, code, retryable=False)
        assert entrance.key_ring.signed == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[1]", "invalid_input"),
        (b'{"key": NaN}', "invalid_json"),
        (b'{"key": "a", "key": "b"}', "duplicate_member"),
        (b"[" * 100_000, "invalid_json"),
    ],
)
def test_what_is_not_one_json_object_is_refused(body: bytes, code: str) -> None:
    """Whatever the octets are, the answer is a problem."""
    with running() as entrance:
        response = entrance.client.post("/v1/sign", content=body, headers={"Content-Type": "application/json"})
        assert_problem(response, 400, code, retryable=False)


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_only_json_is_taken(media_type: str | None) -> None:
    """Another media type, or none, is a 415; a web page can send only those without asking."""
    headers = {"Content-Type": media_type} if media_type else {}
    with running() as entrance:
        response = entrance.client.post("/v1/sign", content=b"{}", headers=headers)
        assert_problem(response, 415, "unsupported_media_type", retryable=False)


def test_json_with_a_charset_is_taken() -> None:
    """Parameters and case of the media type do not matter."""
    with running() as entrance:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        request = entrance.client.build_request("POST", "/v1/sign", json=signing_request(), headers=headers)
        assert entrance.client.send(request).status_code == 200


@pytest.mark.parametrize(
    ("fail", "status", "code"),
    [
        (lambda it: it.key_ring.fail_next(HsmUnavailableError("gone")), 503, "hsm_unavailable"),
        (lambda it: it.key_ring.fail_next(PoolExhaustedError("busy")), 503, "hsm_busy"),
        (lambda it: it.key_ring.fail_next(DeadlineExceededError("late")), 504, "deadline_exceeded"),
        (lambda it: it.ledger.fail_next_claim(LedgerUnavailableError("gone")), 503, "ledger_unavailable"),
        (lambda it: it.ledger.fail_next_complete(LedgerUnavailableError("gone")), 503, "ledger_unavailable"),
        (lambda it: it.audit.fail_next(AuditUnavailableError("gone")), 503, "audit_unavailable"),
        (lambda it: setattr(it.key_ring, "spoils", True), 502, "signature_invalid"),
        (lambda it: it.key_ring.fail_next(ClaimLostError("lost")), 409, "claim_lost"),
    ],
)
def test_what_the_service_stands_on_fails(fail: Callable[[Entrance], None], status: int, code: str) -> None:
    """No signature is in the answer, and the same request is signed a moment later."""
    with running() as entrance:
        fail(entrance)
        problem = assert_problem(entrance.sign(), status, code, retryable=True)
        entrance.key_ring.spoils = False
        assert entrance.sign().status_code == 200
        (line,) = entrance.log_lines("request.refused")
        assert line["request_id"] == problem["request_id"]


def test_a_defect_is_a_500_that_says_nothing() -> None:
    """Its traceback is in the log under the request id; its text, which may quote input, is nowhere."""
    with running() as entrance:
        entrance.key_ring.fail_next(RuntimeError("canary-in-an-exception"))
        response = entrance.sign()
        problem = assert_problem(response, 500, "internal_error", retryable=False)
        (line,) = entrance.log_lines("request.failed")
        assert (line["request_id"], line["error"]) == (problem["request_id"], "RuntimeError")
        assert any("simulators.py" in frame for frame in line["where"])
        assert "canary" not in response.text + entrance.log.getvalue()
        assert entrance.sign().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/sign/", 404, "not_found"),
        ("GET", "/redoc", 404, "not_found"),
        ("GET", "/v1/sign", 405, "method_not_allowed"),
        ("DELETE", "/v1/keys", 405, "method_not_allowed"),
        ("MADE-UP", "/livez", 400, "malformed_request"),
    ],
)
def test_what_no_route_serves_is_a_problem_too(method: str, path: str, status: int, code: str) -> None:
    """Unknown paths and methods answer in the same form, and 405 names what is allowed."""
    with running() as entrance:
        response = entrance.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == PROBLEM_MEDIA_TYPE
    assert ("Allow" in response.headers) is (status == 405)


def test_a_route_that_validates_does_not_quote_the_input() -> None:
    """FastAPI's own 422 would: a later route must not bring it back."""

    async def count(number: int) -> int:
        return number

    with running() as entrance:
        entrance.app.router.routes.append(APIRoute("/count", count))
        response = entrance.client.get("/count", params={"number": "canary"})
        assert_problem(response, 400, "invalid_input", retryable=False)
    assert "canary" not in response.text


def test_a_refusal_of_the_framework_that_nobody_knows_is_a_defect() -> None:
    """It has no entry in the catalogue, so no code is made up for it; the log tells where it came from."""

    async def refuse() -> None:
        raise HTTPException(418, CANARY)

    with running() as entrance:
        entrance.app.router.routes.append(APIRoute("/teapot", refuse))
        response = entrance.client.get("/teapot")
        assert_problem(response, 500, "internal_error", retryable=False)
        (line,) = entrance.log_lines("request.failed")
    assert line["error"] == "HTTPException"
    assert CANARY not in response.text + str(line)


CANARY = "c4n4ry"
BODIES = [
    CANARY,
    f'{{"{CANARY}": 1}}',
    f'{{"key": "{CANARY} "}}',
    f'{{"key": "settlement", "transaction_id": "{CANARY} "}}',
    f'{{"key": "settlement", "transaction_id": "T", "algorithm": "{CANARY}", "message": {{}}}}',
    f'{{"key": "settlement", "transaction_id": "T", "payload": "{CANARY}"}}',
    f'{{"key": "settlement", "transaction_id": "T", "message": {{"{CANARY}": "{CANARY}", "{CANARY}": 1}}}}',
    f'{{"key": "settlement", "transaction_id": "T", "message": {{"a": "{CANARY}\\ud800"}}}}',
    f'{{"key": "{FORBIDDEN_ALIAS}", "transaction_id": "T", "message": {{"a": "{CANARY}"}}}}',
    f'{{"key": "settlement", "transaction_id": "T", "message": {{"a": "{CANARY}"}}}}',
    f'{{"key": "k-{CANARY}", "transaction_id": "T", "message": {{"a": 1}}}}',
]
HEADERS = [
    {},
    {"Content-Type": CANARY},
    {"X-Request-Id": CANARY},
    {"X-Forwarded-For": CANARY},
    {"Accept": CANARY, "Authorization": f"Bearer {CANARY}", "Cookie": f"a={CANARY}"},
    {"Host": f"{CANARY}.example", CANARY: CANARY},
    {"Traceparent": CANARY, "Upgrade": CANARY, "Connection": "Upgrade"},
]
PATHS = ["/v1/sign", f"/v1/sign?q={CANARY}", f"/{CANARY}", f"/v1/keys/{CANARY}/public-key", f"/livez/{CANARY}?{CANARY}"]


def test_nothing_of_the_input_comes_back_or_is_logged() -> None:
    """A canary in any place of a request shows in no part of any answer, in no log line and in no metric."""
    with running() as entrance:
        for path, headers, body in itertools.product(PATHS, HEADERS, BODIES):
            for method in ("GET", "POST") if body is BODIES[0] else ("POST",):
                all_headers = {"Content-Type": "application/json", **headers}
                response = entrance.client.request(method, path, content=body, headers=all_headers)
                whole = f"{response.reason_phrase} {response.headers} {response.text}"
                assert CANARY not in whole, (method, path, headers, body)
        entrance.readiness.probe()
        assert len(entrance.log_lines("request.refused")) > len(BODIES)
        assert CANARY not in entrance.log.getvalue()
        assert CANARY not in entrance.client.get("/metrics").text
