"""What is kept of a refused batch does not keep the batch: neither its document nor the frames that read it."""

import gc
import json
from typing import Any

import pytest

from signer.transactions import BatchRefusedError, parse_batch

BATCH_ID = "KEPT-REFUSAL"


def batch(**changes: Any) -> bytes:
    document = {"schema": "settlement-batch/1", "batch_id": BATCH_ID, "key": "settlement", "transactions": [{}]}
    return json.dumps({**document, **changes}).encode()


def refusal_of(body: bytes) -> BatchRefusedError:
    """Keep it as the queue entrance does while it sets the batch aside."""
    try:
        parse_batch(body, 10)
    except BatchRefusedError as refused:
        return refused.without_frames()
    raise AssertionError(body)


def documents_alive() -> int:
    """Count the parsed batches of these tests in memory."""
    return sum(
        isinstance(each, dict) and "schema" in each and each.get("batch_id") == BATCH_ID for each in gc.get_objects()
    )


@pytest.mark.parametrize(
    "change",
    [{"schema": "other"}, {"transactions": [{"transaction_id": "T", "message": {"x": "\ud800"}}, {}]}],
    ids=["as a whole", "by its transactions"],
)
def test_a_refusal_lets_go_of_the_document(change: dict[str, Any]) -> None:
    """The refusal is at hand still, and no collection ran; yet the document is gone."""
    gc.collect()
    gc.disable()
    try:
        refused = refusal_of(batch(**change))
        assert refused.refusals
        assert documents_alive() == 0
    finally:
        gc.enable()


def test_no_more_transactions_are_named_than_a_batch_may_have() -> None:
    """Of a batch with thousands too many, as many are named as would have been taken."""
    refused = refusal_of(batch(transactions=[{}] * 5000))
    assert (refused.cause.code, len(refused.refusals)) == ("too_many_transactions", 10)
