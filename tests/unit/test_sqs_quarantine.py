"""The reasons of a quarantine entry fit beside the body, whatever its size."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from signer.errors import ConflictError
from signer.sqs.messages import Delivery, size_bytes, string_attribute
from signer.sqs.patience import Failure
from signer.sqs.quarantine import quarantine_attributes
from signer.transactions import BatchRefusedError, Refusal

LIMIT = 4096


FIRST = datetime(2028, 3, 8, 12, tzinfo=UTC)
HISTORY = [Failure(2, "hsm_unavailable", FIRST + timedelta(minutes=1))]


def reasons_and_size(body: str, refused: BatchRefusedError, own: int = 0) -> tuple[dict[str, Any] | None, int]:
    """Give the reasons that were found room for, and the size of the whole message."""
    attributes = {f"own-{number}": string_attribute("ü") for number in range(own)}
    system = {
        "ApproximateReceiveCount": "3",
        "ApproximateFirstReceiveTimestamp": str(int(FIRST.timestamp() * 1000)),
        "MessageGroupId": "bank-7",
    }
    delivery = Delivery("message-1", "handle", body, attributes, system, 0.0, 0.0)
    given_attributes = quarantine_attributes(delivery, refused, HISTORY, "inbound", LIMIT)
    assert len(given_attributes) <= 10
    assert own == 10 or set(attributes) <= set(given_attributes)
    text = given_attributes["quarantine"]["StringValue"] if "quarantine" in given_attributes else None
    assert text is None or text.isascii()
    return (None if text is None else json.loads(text)), size_bytes(body, given_attributes)


def refusal_of(count: int) -> BatchRefusedError:
    """A refused batch with `count` conflicts."""
    refusals = [Refusal(index, f"TXN-{index}", ConflictError("bound to other content")) for index in range(count)]
    return BatchRefusedError(ConflictError("bound to other content"), "STL-1", refusals)


def test_everything_is_said_where_there_is_room() -> None:
    """Code, message, origin, what happened to it before, and every transaction stand in the reasons."""
    reasons, _ = reasons_and_size("body", refusal_of(1))
    assert reasons == {
        "code": "transaction_conflict",
        "message": "bound to other content",
        "batch_id": "STL-1",
        "queue": "inbound",
        "message_id": "message-1",
        "receive_count": 3,
        "first_received": "2028-03-08T12:00:00.000000Z",
        "group_id": "bank-7",
        "history": [{"receive": 2, "code": "hsm_unavailable", "at": "2028-03-08T12:01:00.000000Z"}],
        "transactions": [
            {"index": 0, "transaction_id": "TXN-0", "code": "transaction_conflict", "message": "bound to other content"}
        ],
    }


def test_transactions_are_left_out_from_the_end_and_counted() -> None:
    """As many transactions as fit are named, one more would not fit, and the number left out is said."""
    reasons, size = reasons_and_size("body", refusal_of(500))
    assert reasons is not None
    named = [entry["index"] for entry in reasons["transactions"]]
    assert named == list(range(500 - reasons["transactions_omitted"]))
    assert LIMIT - 120 < size <= LIMIT


def test_a_full_body_goes_out_with_the_code_alone_or_with_nothing() -> None:
    """The body is never cut: the reasons give way, first to the code and then altogether."""
    assert reasons_and_size("x" * (LIMIT - 60), refusal_of(5)) == ({"code": "transaction_conflict"}, LIMIT - 13)
    assert reasons_and_size("x" * (LIMIT - 10), refusal_of(5)) == (None, LIMIT - 10)


def test_all_ten_attributes_of_a_message_outweigh_the_reasons() -> None:
    """Where the tenth attribute cannot move into the reasons, it stays an attribute, and the reasons give way."""
    reasons, _ = reasons_and_size("body", refusal_of(0), own=10)
    assert reasons is not None
    assert reasons["attributes"] == {"own-9": {"DataType": "String", "StringValue": "ü"}}
    assert reasons_and_size("x" * (LIMIT - 200), refusal_of(0), own=10)[0] is None


def test_reasons_of_an_earlier_quarantine_are_replaced() -> None:
    """A message sent in again from quarantine does not carry its old reasons along for ever."""
    delivery = Delivery("message-1", "handle", "body", {"quarantine": string_attribute("old")}, {}, 0.0, 0.0)
    attributes = quarantine_attributes(delivery, refusal_of(0), [], "inbound", LIMIT)
    assert list(attributes) == ["quarantine"]
    assert "old" not in attributes["quarantine"]["StringValue"]


@given(st.integers(1, LIMIT), st.integers(0, 60), st.integers(0, 10))
def test_the_message_never_outgrows_the_limit_because_of_the_reasons(size: int, count: int, own: int) -> None:
    """Whatever body, transactions and attributes there are, the reasons never push the message over the limit."""
    bare = size + sum(len(f"own-{number}") + len("String") + 2 for number in range(own))
    assert reasons_and_size("x" * size, refusal_of(count), own)[1] <= max(LIMIT, bare)
