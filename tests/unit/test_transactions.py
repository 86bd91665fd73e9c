"""Batches and requests are read strictly; what comes out is what came in, plus signatures."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.api.requests import parse_sign
from signer.errors import InvalidInputError
from signer.signatures import RSASSA_PSS_SHA_256
from signer.transactions import BatchRefusedError, parse_batch

MESSAGE = {"amount": "1250.00", "currency": "EUR"}


def batch(**changes: Any) -> dict[str, Any]:
    """A batch that can be signed, with `changes`; a member set to None is left out."""
    document = {
        "schema": "settlement-batch/1",
        "batch_id": "STL-1",
        "key": "settlement",
        "transactions": [
            {"transaction_id": "TXN-1", "message": MESSAGE},
            {"transaction_id": "TXN-2", "payload": base64.b64encode(b"<xml/>").decode()},
        ],
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def refused(document: Any, max_transactions: int = 10) -> BatchRefusedError:
    """Parse what must be refused."""
    with pytest.raises(BatchRefusedError) as caught:
        parse_batch(json.dumps(document).encode(), max_transactions)
    return caught.value


def test_digests_are_over_the_canonical_bytes() -> None:
    """A message is hashed in RFC 8785 form, a payload as the bytes it stands for."""
    parsed = parse_batch(json.dumps(batch(), indent=3).encode(), 10)
    assert [request.digest for request in parsed.requests] == [
        hashlib.sha256(b'{"amount":"1250.00","currency":"EUR"}').digest(),
        hashlib.sha256(b"<xml/>").digest(),
    ]
    assert {request.key_alias for request in parsed.requests} == {"settlement"}


def test_the_signed_batch_is_the_batch_in_its_order_with_signatures() -> None:
    """Nothing is lost, added or moved but schema and signatures, and the same input gives the same bytes."""
    document = batch()
    parsed = parse_batch(json.dumps(document).encode(), 10)
    rendered = parsed.form.fill([{"value": "one"}, {"value": "two"}])
    assert rendered == parsed.form.fill([{"value": "one"}, {"value": "two"}])
    signed = json.loads(rendered)
    assert list(signed) == list(document)
    assert signed["schema"] == "signed-settlement-batch/1"
    assert [item.pop("signature") for item in signed["transactions"]] == [{"value": "one"}, {"value": "two"}]
    assert signed == {**document, "schema": "signed-settlement-batch/1"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"schema": None}, "unknown_schema"),
        ({"schema": "settlement-batch/2"}, "unknown_schema"),
        ({"batch_id": None}, "invalid_input"),
        ({"batch_id": ""}, "invalid_input"),
        ({"batch_id": "x" * 129}, "invalid_input"),
        ({"batch_id": "new\nline"}, "invalid_input"),
        ({"key": None}, "invalid_input"),
        ({"key": 7}, "invalid_input"),
        ({"transactions": None}, "invalid_input"),
        ({"transactions": {}}, "invalid_input"),
        ({"transactions": []}, "empty_batch"),
        ({"transactions": [{"transaction_id": f"T{i}", "message": {}} for i in range(11)]}, "too_many_transactions"),
        ({"algorithm": "RSASSA_PKCS1_V1_5_SHA_1"}, "unknown_algorithm"),
        ({"surprise": 1}, "invalid_input"),
    ],
)
def test_a_batch_that_can_never_be_signed_is_refused_whole(changes: dict[str, Any], code: str) -> None:
    """Each flaw of the batch has its code, and every transaction that can be named carries it, up to ten."""
    document = batch(**changes)
    error = refused(document)
    assert error.cause.code == code
    transactions = document.get("transactions")
    if isinstance(transactions, list):
        assert [refusal.error.code for refusal in error.refusals] == [code] * min(len(transactions), 10)


@pytest.mark.parametrize("document", [7, "text", None, [], [batch()]])
def test_what_is_no_object_is_no_batch(document: Any) -> None:
    """JSON of another shape is refused."""
    assert refused(document).cause.code == "invalid_input"


@pytest.mark.parametrize(
    ("transaction", "code"),
    [
        (7, "invalid_transaction"),
        ({"message": MESSAGE}, "invalid_input"),
        ({"transaction_id": ["T"], "message": MESSAGE}, "invalid_input"),
        ({"transaction_id": "T"}, "invalid_transaction"),
        ({"transaction_id": "T", "message": MESSAGE, "payload": "AAAA"}, "invalid_transaction"),
        ({"transaction_id": "T", "message": None}, "invalid_transaction"),
        ({"transaction_id": "T", "message": "text"}, "invalid_transaction"),
        ({"transaction_id": "T", "digest": base64.b64encode(b"x" * 32).decode()}, "invalid_input"),
        ({"transaction_id": "T", "message": MESSAGE, "signature": {}}, "invalid_input"),
        ({"transaction_id": "T", "payload": ""}, "invalid_base64"),
        ({"transaction_id": "T", "payload": 7}, "invalid_base64"),
        ({"transaction_id": "T", "payload": "AAA"}, "invalid_base64"),
        ({"transaction_id": "T", "payload": "AA=="[:3]}, "invalid_base64"),
        ({"transaction_id": "T", "payload": "AB=="}, "invalid_base64"),
        ({"transaction_id": "T", "payload": "AA==\n"}, "invalid_base64"),
        ({"transaction_id": "T", "payload": "_-8="}, "invalid_base64"),
        ({"transaction_id": "T", "message": {"text": "\ud800"}}, "invalid_json"),
        ({"transaction_id": "TXN-1", "message": MESSAGE}, "duplicate_transaction_id"),
    ],
)
def test_one_bad_transaction_names_itself_and_abandons_its_siblings(transaction: Any, code: str) -> None:
    """The batch is refused for the bad one's reason; its siblings say that they were abandoned for it."""
    document = batch()
    document["transactions"].append(transaction)
    error = refused(document)
    codes = [refusal.error.code for refusal in error.refusals]
    first = "duplicate_transaction_id" if code == "duplicate_transaction_id" else "batch_abandoned"
    assert codes == [first, "batch_abandoned", code]
    assert error.cause.code == code
    assert [refusal.transaction_id for refusal in error.refusals][:2] == ["TXN-1", "TXN-2"]


def test_a_request_signs_a_ready_digest() -> None:
    """The synchronous entrance takes a digest of exactly 32 bytes, under the algorithm that is named."""
    digest = hashlib.sha256(b"x").digest()
    document = {
        "key": "settlement",
        "transaction_id": "T",
        "digest": base64.b64encode(digest).decode(),
        "algorithm": "RSASSA_PSS_SHA_256",
    }
    request, _ = parse_sign(json.dumps(document).encode(), "~once:1")
    assert (request.digest, request.algorithm) == (digest, RSASSA_PSS_SHA_256)
    for size in (0, 31, 33, 64):
        document["digest"] = base64.b64encode(b"x" * size).decode()
        with pytest.raises(InvalidInputError):
            parse_sign(json.dumps(document).encode(), "~once:1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "schema": st.just("settlement-batch/1") | JSON,
        "batch_id": st.just("B") | JSON,
        "key": st.just("settlement") | JSON,
        "algorithm": JSON,
        "transactions": JSON
        | st.lists(
            st.fixed_dictionaries(
                {}, optional={"transaction_id": st.just("T") | JSON, "message": JSON, "payload": JSON, "digest": JSON}
            )
        ),
    },
)


@given(SHAPED | JSON)
def test_any_document_is_parsed_or_refused(document: Any) -> None:
    """No shape of input raises anything but a refusal with a code and, where they can be told apart, a reason each."""
    body = json.dumps(document).encode()
    try:
        parse_batch(body, 5)
    except BatchRefusedError as error:
        assert error.cause.code  # noqa: PT017 - both ways out are right
    try:
        parse_sign(body, "~once:1")
    except InvalidInputError as error:
        assert error.code  # noqa: PT017
