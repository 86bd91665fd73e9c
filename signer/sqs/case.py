"""One delivered message on its way through the entrance."""

from dataclasses import dataclass, field
from typing import Any, Final

from signer.errors import InvalidInputError
from signer.metrics import Stopwatch
from signer.sqs.lease import Lease
from signer.sqs.messages import Delivery
from signer.sqs.pointers import pointer_of
from signer.transactions import Refusal

_SMALLEST_BYTES: Final = len('{"transaction_id":"1","message":{}},')


@dataclass(slots=True, eq=False)
class Case:
    """One message in flight, and what is known of it by now."""

    delivery: Delivery
    lease: Lease
    watch: Stopwatch
    transactions: int
    """As it seems at first sight, and exactly once it was read."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What its log line will say."""
    is_downstream: bool = False
    """Whether the downstream queue has accepted the batch: only its deletion is left."""
    refusals: tuple[Refusal, ...] = ()
    """How each of its transactions fared, if they were not signed."""


def likely_transactions(delivery: Delivery, most: int) -> int:
    """Guess how many transactions a message brings (1 to `most`) without reading it: that is for the workers to do.

    Of a body in S3 the size alone is known, and every byte could belong to the smallest of transactions.
    """
    try:
        pointer = pointer_of(delivery)
    except InvalidInputError:
        return 1
    likely = delivery.body.count('"transaction_id"') if pointer is None else pointer.size_bytes // _SMALLEST_BYTES
    return max(1, min(likely, most))
