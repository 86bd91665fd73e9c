"""Auditors ask what was signed, by transaction or by digest; nobody else may, and every question is on record."""

import base64
import hashlib

import httpx
import pytest

from signer.errors import LedgerUnavailableError
from signer.policy import AUDITOR, CallerPolicy, Kills, Policy
from tests.integration.http_support import ALIAS, CALLER, CANONICAL_MESSAGE, Entrance, allow, eventually, running
from tests.unit.policies import KILL

DIGEST = base64.b64encode(hashlib.sha256(CANONICAL_MESSAGE).digest()).decode()


def search(entrance: Entrance, **query: str) -> httpx.Response:
    return entrance.client.get("/v1/signatures", params=query)


@pytest.mark.parametrize("query", [{"transaction_id": "TXN-000001"}, {"digest": DIGEST}])
def test_an_auditor_learns_what_was_signed(query: dict[str, str]) -> None:
    """When, with which key, for whom: the signature itself, the caller, and the record of both."""
    with running() as entrance:
        allow(entrance, roles=frozenset({AUDITOR}))
        signature = entrance.sign().json()["signature"]
        entrance.sign(transaction_id="TXN-2", message={"amount": "2.00"})
        answer = search(entrance, **query).json()
        (entry,) = entrance.audit.of("search")
    assert answer["signatures"] == [
        {
            "transaction_id": "TXN-000001",
            "key_alias": ALIAS,
            "caller": CALLER,
            "algorithm": signature["algorithm"],
            "jose_algorithm": "RS256",
            "digest": DIGEST,
            "signature": signature,
        }
    ]
    assert answer["audit_id"]
    assert (entry.outcome, entry.caller) == ("done", CALLER)


def test_nothing_is_found_where_nothing_was_signed() -> None:
    """An empty answer is one, too."""
    with running() as entrance:
        allow(entrance, roles=frozenset({AUDITOR}))
        response = search(entrance, transaction_id="T-0")
    assert (response.status_code, response.json()["signatures"]) == (200, [])


def test_nobody_else_may_ask() -> None:
    """The refusal is on record; it does not depend on what there is."""
    with running() as entrance:
        entrance.sign()
        answers = [search(entrance, transaction_id=name) for name in ("TXN-000001", "T-0")]
        answers.append(search(entrance))
        recorded = [(entry.error_code, entry.transaction_id) for entry in entrance.audit.of("search")]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, "not_authorised")] * 3
    assert recorded == [("not_authorised", "TXN-000001"), ("not_authorised", "T-0"), ("not_authorised", None)]
    assert len({answer.json()["audit_id"] for answer in answers}) == 3


def test_a_killed_auditor_may_not_ask() -> None:
    """And is told why: a person has to revive it."""
    with running() as entrance:
        auditor = CallerPolicy({}, roles=frozenset({AUDITOR}))
        entrance.authority.replace(Policy({CALLER: auditor}, Kills(callers={CALLER: KILL})))
        response = search(entrance, transaction_id="T-0")
        eventually(lambda: entrance.audit.of("admit") != [])
        (entry,) = entrance.audit.of("admit")
    assert (response.status_code, response.json()["code"], entry.error_code) == (403, *["caller_killed"] * 2)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "transaction_id=a&digest=b",
        "transaction_id=a&transaction_id=a",
        "other=a",
        "transaction_id=%20",
        "digest=AAAA",
    ],
)
def test_a_question_that_is_none_is_refused(query: str) -> None:
    """One parameter, once, well-formed; and what an auditor tried is on record."""
    with running() as entrance:
        allow(entrance, roles=frozenset({AUDITOR}))
        response = entrance.client.get(f"/v1/signatures?{query}")
        (entry,) = entrance.audit.of("search")
    assert response.status_code == 400
    assert response.json()["code"] in {"invalid_input", "invalid_transaction"}
    assert response.json()["audit_id"]
    assert (entry.outcome, entry.error_code) == ("refused", response.json()["code"])
    assert (entry.transaction_id, entry.digest) == (None, None)


def test_what_cannot_be_looked_up_is_unavailable() -> None:
    """An answer that says nothing was signed would be believed."""
    with running() as entrance:
        allow(entrance, roles=frozenset({AUDITOR}))
        entrance.ledger.fail_next_search(LedgerUnavailableError("gone"))
        response = search(entrance, transaction_id="TXN-000001")
        (entry,) = entrance.audit.of("search")
    assert (response.status_code, response.json()["code"]) == (503, "ledger_unavailable")
    assert (entry.outcome, entry.error_code) == ("failed", "ledger_unavailable")
