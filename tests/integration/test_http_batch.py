"""A batch over HTTP is one call: each item is answered for itself, in order, under the caller's own reference."""

import base64
import json
from typing import Any

import httpx
import pytest

from signer.errors import AuditUnavailableError, HsmUnavailableError, LedgerUnavailableError
from tests.integration.http_support import (
    ALIAS,
    CANONICAL_MESSAGE,
    FORBIDDEN_ALIAS,
    MESSAGE,
    Entrance,
    is_valid,
    running,
)

PSS = "RSASSA_PSS_SHA_256"


def item(number: int, **changes: Any) -> dict[str, Any]:
    """An item that is signed, with `changes`; a member set to None is left out."""
    document = {"reference": f"line-{number}", "transaction_id": f"TXN-{number}", "message": MESSAGE, **changes}
    return {name: value for name, value in document.items() if value is not None}


def sign_batch(
    entrance: Entrance, *items: Any, headers: dict[str, str] | None = None, **members: Any
) -> httpx.Response:
    """Ask for a batch."""
    body = {"key": ALIAS, "transactions": list(items), **members}
    return entrance.client.post("/v1/sign-batch", json=body, headers=headers)


def test_every_item_is_signed_by_one_call() -> None:
    """Results come in order with their references; ledger and audit log are asked once for all of them."""
    with running() as entrance:
        response = sign_batch(entrance, *(item(number) for number in range(50)))
        sizes = (entrance.ledger.sizes["claim"], entrance.ledger.sizes["complete"], entrance.audit.sizes[-1:])
    answer = response.json()
    assert response.status_code == 200
    assert [(result["reference"], result["transaction_id"]) for result in answer["results"]] == [
        (f"line-{number}", f"TXN-{number}") for number in range(50)
    ]
    assert all(is_valid(result, CANONICAL_MESSAGE) for result in answer["results"])
    assert (answer["signed"], answer["failed"]) == (50, 0)
    assert sizes == ([50], [50], [50])


def test_one_item_fails_for_itself() -> None:
    """Its siblings are signed; it has a code, and an audit record if it came so far."""
    with running() as entrance:
        entrance.sign(transaction_id="TXN-4", message={"amount": "1.00"})
        response = sign_batch(
            entrance, item(1), item(2, message=None, payload="not base64"), 7, item(4), item(5, surplus=1), item(6)
        )
        (conflict,) = (entry for entry in entrance.audit.of("sign") if entry.error_code == "transaction_conflict")
        signed = len(entrance.key_ring.signed)
    answer = response.json()
    codes = [result.get("error", {}).get("code") for result in answer["results"]]
    assert response.status_code == 200
    assert codes == [None, "invalid_base64", "invalid_transaction", "transaction_conflict", "invalid_input", None]
    assert (answer["signed"], answer["failed"], signed) == (2, 4, 3)
    assert answer["results"][3]["error"] == {
        "type": "/docs/errors#transaction_conflict",
        "status": 409,
        "code": "transaction_conflict",
        "retryable": False,
        "detail": "this transaction is bound to other content",
        "audit_id": answer["results"][3]["error"]["audit_id"],
    }
    assert conflict.transaction_id == "TXN-4"
    assert "audit_id" not in answer["results"][1]["error"]


def test_the_same_batch_again_gets_the_very_same_results() -> None:
    """PSS is randomised, so equal results show that they were kept; a batch that grew gets the rest signed."""
    with running() as entrance:
        first, again = (sign_batch(entrance, item(1), item(2), algorithm=PSS) for _ in range(2))
        grown = sign_batch(entrance, item(1), item(2), item(3), algorithm=PSS)
        assert len(entrance.key_ring.signed) == 3
    assert again.content == first.content
    assert grown.json()["results"][:2] == first.json()["results"]
    assert (grown.json()["signed"], grown.json()["failed"]) == (3, 0)
    marks = [answer.headers.get("Idempotency-Replayed") for answer in (first, again, grown)]
    assert marks == [None, "true", None]


def test_an_idempotency_key_stands_for_items_that_name_no_transaction() -> None:
    """By their place in the batch; without one, each request is a new one."""
    with running(require_transaction_id=False) as entrance:
        items = [item(1, transaction_id=None), item(2, transaction_id=None)]
        answers = [sign_batch(entrance, *items, headers={"Idempotency-Key": "K"}, algorithm=PSS) for _ in range(2)]
        new = sign_batch(entrance, *items, algorithm=PSS)
        refused = sign_batch(entrance, *items, headers={"Idempotency-Key": "with space"})
        assert len(entrance.key_ring.signed) == 4
    assert answers[0].json()["results"] == answers[1].json()["results"]
    assert new.json()["results"] != answers[0].json()["results"]
    values = {result["signature"]["value"] for result in answers[0].json()["results"]}
    assert len(values) == 2
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_input")


def test_one_transaction_stands_once_in_a_batch() -> None:
    """Every item that names it is refused: which of them counts?"""
    with running() as entrance:
        answer = sign_batch(entrance, item(1), item(2), item(1, message={"amount": "2.00"})).json()
    codes = [result.get("error", {}).get("code") for result in answer["results"]]
    assert codes == ["duplicate_transaction_id", None, "duplicate_transaction_id"]


@pytest.mark.parametrize("reference", ["", "with space", "x" * 129, "<script>", 7, None, "caf\u00e9", "a\n"])
def test_a_reference_that_is_none_is_not_said_back(reference: Any) -> None:
    """Only 1 to 128 characters of a safe kind come back; the item is refused otherwise."""
    with running() as entrance:
        body = {"key": ALIAS, "transactions": [{**item(1), "reference": reference}, item(2)]}
        results = entrance.client.post("/v1/sign-batch", json=body).json()["results"]
    assert "reference" not in results[0]
    assert results[0]["error"]["code"] == "invalid_input"
    assert results[1]["reference"] == "line-2"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"transactions": []}, 400, "empty_batch"),
        ({"transactions": [item(1), item(2), item(3), item(4)]}, 400, "too_many_transactions"),
        ({"transactions": {}}, 400, "invalid_input"),
        ({"transactions": None}, 400, "invalid_input"),
        ({"key": "with space"}, 400, "invalid_input"),
        ({"algorithm": "RS256"}, 400, "unknown_algorithm"),
        ({"surplus": 1}, 400, "invalid_input"),
        ({"key": "unheard-of"}, 404, "unknown_key"),
        ({"key": FORBIDDEN_ALIAS}, 403, "not_authorised"),
    ],
)
def test_what_is_wrong_with_the_whole_batch_is_a_problem(changes: dict[str, Any], status: int, code: str) -> None:
    """It has the status that one transaction would have had, and nothing is signed."""
    with running(max_batch_transactions=3) as entrance:
        body = {"key": ALIAS, "transactions": [item(1), item(2)], **changes}
        response = entrance.client.post("/v1/sign-batch", json=body)
        assert entrance.key_ring.signed == []
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (lambda it: it.key_ring.fail_next(HsmUnavailableError("gone")), "hsm_unavailable"),
        (lambda it: it.ledger.fail_next_claim(LedgerUnavailableError("gone")), "ledger_unavailable"),
        (lambda it: it.ledger.fail_next_complete(LedgerUnavailableError("gone")), "ledger_unavailable"),
        (lambda it: it.audit.fail_next(AuditUnavailableError("gone")), "audit_unavailable"),
    ],
)
def test_when_nothing_can_be_signed_now_the_whole_batch_may_come_again(fail: Any, code: str) -> None:
    """No signature is in the answer; it says for each item that it may be tried again, and then it is signed."""
    with running() as entrance:
        fail(entrance)
        response = sign_batch(entrance, item(1), item(2))
        again = sign_batch(entrance, item(1), item(2))
    problem = response.json()
    assert (response.status_code, problem["code"], response.headers["Retry-After"]) == (503, code, "1")
    assert [(result["reference"], result["error"]["retryable"]) for result in problem["results"]] == [
        ("line-1", True), ("line-2", True)
    ]  # fmt: skip
    assert "signature" not in response.text.replace("signatures", "")
    assert again.json()["signed"] == 2


def test_some_items_may_come_again_while_others_were_signed() -> None:
    """What was signed before an outage is replayed in it, beside what has to wait."""
    with running() as entrance:
        sign_batch(entrance, item(1))
        entrance.key_ring.fail_next(HsmUnavailableError("gone"))
        response = sign_batch(entrance, item(1), item(2))
    first, second = response.json()["results"]
    assert response.status_code == 200
    assert is_valid(first, CANONICAL_MESSAGE)
    assert (second["error"]["code"], second["error"]["retryable"], second["error"]["status"]) == (
        "hsm_unavailable", True, 503
    )  # fmt: skip


def test_items_that_are_all_wrong_are_answered_for_themselves() -> None:
    """What is wrong with items is never said of the batch, even if it is the same for all."""
    with running() as entrance:
        entrance.sign(transaction_id="TXN-1", message={"amount": "1.00"})
        malformed, conflicting = sign_batch(entrance, 1, "two", None), sign_batch(entrance, item(1))
    assert (malformed.status_code, malformed.json()["failed"]) == (200, 3)
    assert (conflicting.status_code, conflicting.json()["failed"]) == (200, 1)


def test_one_line_tells_about_a_batch() -> None:
    """How many were signed, replayed and refused; no reference and no id of an item."""
    with running() as entrance:
        sign_batch(entrance, item(1), item(2, message=None, payload="x"))
        (line,) = entrance.log_lines("request.batch_signed")
    assert (line["signed"], line["replayed"], line["failed"], line["status"]) == (1, 0, 1, 200)
    assert "line-1" not in json.dumps(line)


def test_a_batch_of_digests_as_large_as_allowed_fits() -> None:
    """500 digests with references and ids are well below the limit of a body."""
    digest = base64.b64encode(bytes(32)).decode()
    with running() as entrance:
        items = [item(number, message=None, digest=digest) for number in range(500)]
        response = sign_batch(entrance, *items)
        assert entrance.ledger.sizes["claim"] == [500]
    assert (response.status_code, response.json()["signed"]) == (200, 500)


def test_who_may_nothing_does_not_fill_the_audit_log() -> None:
    """One record for each call, and so many in a minute: the answers go on, the metric counts them, nothing is lost."""
    with running() as entrance:
        answers = [
            sign_batch(entrance, *(item(number) for number in range(100)), key=FORBIDDEN_ALIAS) for _ in range(70)
        ]
        good = sign_batch(entrance, item(1))
        entries = entrance.audit.of("sign")
        refused = entrance.sample("signer_signatures_total", key=FORBIDDEN_ALIAS, entrance="http", outcome="refused")
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "not_authorised")}
    assert [(entry.error_code, entry.detail) for entry in entries] == [
        *[("not_authorised", "100 transactions")] * 60,
        (None, None),
    ]
    assert refused == 7000
    named = [len({result["error"].get("audit_id") for result in answer.json()["results"]}) for answer in answers]
    assert named == [1] * 70
    assert "audit_id" not in answers[-1].json()["results"][0]["error"]
    assert good.status_code == 200


def test_an_item_that_cannot_be_read_changes_nothing_for_the_others() -> None:
    """What keeps the rest from being signed is still the status of all."""
    with running() as entrance:
        refused = sign_batch(entrance, item(1), 7, key=FORBIDDEN_ALIAS)
        alone = sign_batch(entrance, 7, key=FORBIDDEN_ALIAS)
        entrance.key_ring.fail_next(HsmUnavailableError("gone"))
        out = sign_batch(entrance, item(1), 7)
        entries = [(entry.error_code, entry.detail) for entry in entrance.audit.of("sign")]
    assert [(answer.status_code, answer.json()["code"]) for answer in (refused, alone, out)] == [
        (403, "not_authorised"), (403, "not_authorised"), (503, "hsm_unavailable")
    ]  # fmt: skip
    codes = [result["error"]["code"] for result in refused.json()["results"]]
    assert codes == ["not_authorised", "invalid_transaction"]
    assert alone.json()["audit_id"]
    assert entries == [
        ("not_authorised", None), ("not_authorised", "1 transactions that could not be read"), ("hsm_unavailable", None)
    ]  # fmt: skip
