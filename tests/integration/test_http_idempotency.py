"""Where a request names no transaction, its `Idempotency-Key` lets it be sent again; if the key allows it at all."""

import httpx
import pytest

from signer.api.idempotency import stand_in_id
from tests.integration.http_support import ALIAS, MESSAGE, Entrance, running

PSS = "RSASSA_PSS_SHA_256"


def sign(entrance: Entrance, idempotency_key: str | None, **changes: object) -> httpx.Response:
    """Ask for a randomised signature without naming a transaction."""
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    body = {"key": ALIAS, "message": MESSAGE, "algorithm": PSS, **changes}
    return entrance.client.post("/v1/sign", json=body, headers=headers)


def test_the_same_key_gets_the_very_same_answer() -> None:
    """With or without the quotes that the draft standard asks for; nothing is signed twice."""
    with running(require_transaction_id=False) as entrance:
        answers = [sign(entrance, key) for key in ("8e03978e-40d5", "8e03978e-40d5", '"8e03978e-40d5"')]
        assert len(entrance.key_ring.signed) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
    assert list(answers[0].json()) == ["jose_algorithm", "signature"]


def test_the_same_key_over_other_content_is_a_conflict() -> None:
    """As it is for a transaction."""
    with running(require_transaction_id=False) as entrance:
        sign(entrance, "K-1")
        answer = sign(entrance, "K-1", message={"amount": "1.00"})
    assert (answer.status_code, answer.json()["code"]) == (409, "transaction_conflict")


def test_without_any_name_every_request_is_a_new_one() -> None:
    """Each is signed anew, and each is on record under a name of its own."""
    with running(require_transaction_id=False) as entrance:
        first, second = sign(entrance, None), sign(entrance, None)
        names = [entry.transaction_id for entry in entrance.audit.of("sign")]
    assert first.content != second.content
    assert len({name for name in names if str(name).startswith("~once:")}) == 2


def test_a_transaction_id_outweighs_the_key() -> None:
    """The transaction is what is signed once: the header beside it means nothing."""
    with running() as entrance:
        first = sign(entrance, "K-1", transaction_id="T-1")
        again = sign(entrance, "K-2", transaction_id="T-1")
        other = sign(entrance, "K-1", transaction_id="T-2")
    assert again.content == first.content
    assert other.json()["signature"]["value"] != first.json()["signature"]["value"]


@pytest.mark.parametrize("idempotency_key", [None, "K-1"])
def test_a_key_can_insist_on_a_transaction_id(idempotency_key: str | None) -> None:
    """As it does unless its settings say otherwise; the HSM is not asked, and the refusal is on record."""
    with running() as entrance:
        answer = sign(entrance, idempotency_key)
        assert entrance.key_ring.signed == []
        assert [entry.error_code for entry in entrance.audit.of("sign")] == ["transaction_id_required"]
    assert (answer.status_code, answer.json()["code"]) == (400, "transaction_id_required")


@pytest.mark.parametrize("header", ["", '"', '"half', "with space", 'in"side', "x" * 129, "caf\xe9"])
def test_a_key_that_is_none_is_refused(header: str) -> None:
    """Before anything is signed, and without being repeated."""
    with running(require_transaction_id=False) as entrance:
        headers = [(b"Idempotency-Key", header.encode("latin-1"))]
        answer = entrance.client.post("/v1/sign", json={"key": ALIAS, "message": MESSAGE}, headers=headers)
        assert entrance.key_ring.signed == []
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert len(header) <= 1 or header not in answer.text


def test_two_keys_at_once_are_refused() -> None:
    """Which of them counts?"""
    with running(require_transaction_id=False) as entrance:
        headers = [("Idempotency-Key", "K-1"), ("Idempotency-Key", "K-2")]
        answer = entrance.client.post("/v1/sign", json={"key": ALIAS, "message": MESSAGE}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")


def test_what_stands_in_cannot_be_named_and_is_not_shared() -> None:
    """No transaction id begins with `~`; two callers with the same key do not meet; the key itself is not stored."""
    with running(require_transaction_id=False) as entrance:
        answer = sign(entrance, None, transaction_id=stand_in_id(["K-1"], "http:loopback"))
    assert answer.status_code == 400
    assert stand_in_id(["K-1"], "a") != stand_in_id(["K-1"], "b")
    assert "K-1" not in stand_in_id(["K-1"], "a")
