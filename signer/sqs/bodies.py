"""Where the body of a delivered message is: in the message, or in S3."""

from typing import Final

from signer.deadlines import Deadline
from signer.errors import InvalidInputError, PayloadAbsentError, PayloadMismatchError, PayloadNotAllowedError
from signer.sqs.errors import PayloadUnavailableError
from signer.sqs.messages import Delivery
from signer.sqs.payload import PayloadStore
from signer.sqs.pointers import pointer_of
from signer.transactions import BatchRefusedError

# What is wrong in S3 may come right: a copy that is late, an object that is written again.
_MOST_LOOKS: Final = 5


class Bodies:
    """Gives the body of a message; without a store every pointer is refused."""

    def __init__(self, store: PayloadStore | None) -> None:
        self._store = store

    def body_of(self, delivery: Delivery, deadline: Deadline) -> bytes:
        """Give the body.

        Raises `BatchRefusedError` if it can never be had, `PayloadUnavailableError` or `DeadlineExceededError` if it
        cannot be had now: what is absent, or not as the message says, counts as gone at the fifth delivery.
        """
        try:
            pointer = pointer_of(delivery)
            return delivery.body.encode() if pointer is None else self._stored().fetch(pointer, deadline)
        except (PayloadAbsentError, PayloadMismatchError) as error:
            if delivery.receive_count < _MOST_LOOKS:
                raise PayloadUnavailableError(error.message) from None
            raise BatchRefusedError(error) from None
        except InvalidInputError as error:
            raise BatchRefusedError(error) from None

    def _stored(self) -> PayloadStore:
        if self._store is None:
            msg = "the message points to S3, and no bodies are fetched from there (sqs.payloads)"
            raise PayloadNotAllowedError(msg)
        return self._store
