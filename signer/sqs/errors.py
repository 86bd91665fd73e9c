"""What goes wrong at the queues, in our terms."""

from collections.abc import Sequence

from signer.errors import SignerError, UnavailableError
from signer.transactions import Refusal


class QueueUnavailableError(UnavailableError):
    """A queue did not accept a call now; whether it took effect is unknown."""

    code = "queue_unavailable"
    remedy = "It is tried again by itself. Whoever runs the service: is the queue there, and may the task use it?"


class PayloadUnavailableError(UnavailableError):
    """The store of large bodies did not give or take one now."""

    code = "payload_unavailable"
    remedy = "It is tried again by itself. Whoever runs the service: is the bucket there, and may the task use it?"


class LeaseLostError(SignerError):
    """The message is no longer ours: it was, or will be, delivered again, and whoever has it then finishes it."""

    code = "lease_lost"
    retryable = True
    remedy = "Nothing: another worker has the message."


class ReceivesExhaustedError(SignerError):
    """The batch failed so often that the next time the queue would move it away, and nobody would know why."""

    code = "receives_exhausted"
    remedy = "Look at its history (`signer queue quarantined --show`), mend the cause, and `signer queue replay` it."


class BatchDeferredError(SignerError):
    """A batch that could not be signed now: what stood in the way, and how each of its transactions fared."""

    code = "batch_deferred"
    retryable = True
    remedy = "It is tried again by itself."

    def __init__(self, cause: SignerError, batch_id: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.batch_id = batch_id
        self.refusals = tuple(refusals)
