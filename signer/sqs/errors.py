"""What goes wrong at the queues, in our terms."""

from collections.abc import Sequence

from signer.errors import SignerError, UnavailableError
from signer.transactions import Refusal


class QueueUnavailableError(UnavailableError):
    """A queue did not accept a call now; whether it took effect is unknown."""

    code = "queue_unavailable"


class PayloadUnavailableError(UnavailableError):
    """The store of large bodies did not give or take one now."""

    code = "payload_unavailable"


class LeaseLostError(SignerError):
    """The message is no longer ours: it was, or will be, delivered again, and whoever has it then finishes it."""

    code = "lease_lost"
    retryable = True


class ReceivesExhaustedError(SignerError):
    """The batch failed so often that the next time the queue would move it away, and nobody would know why."""

    code = "receives_exhausted"


class BatchDeferredError(SignerError):
    """A batch that could not be signed now: what stood in the way, and how each of its transactions fared."""

    code = "batch_deferred"
    retryable = True

    def __init__(self, cause: SignerError, batch_id: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.batch_id = batch_id
        self.refusals = tuple(refusals)
