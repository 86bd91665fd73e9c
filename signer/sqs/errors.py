"""What goes wrong at the queues, in our terms; botocore's own words stay out, since some of them quote the message."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from signer.errors import SignerError, UnavailableError
from signer.transactions import Refusal


class QueueUnavailableError(UnavailableError):
    """A queue did not accept a call now; whether it took effect is unknown."""

    code = "queue_unavailable"


class LeaseLostError(SignerError):
    """The message is no longer ours: it was, or will be, delivered again, and whoever has it then finishes it."""

    code = "lease_lost"
    retryable = True


class BatchDeferredError(SignerError):
    """A batch that could not be signed now: what stood in the way, and how each of its transactions fared."""

    code = "batch_deferred"
    retryable = True

    def __init__(self, cause: SignerError, batch_id: str, refusals: Sequence[Refusal]) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.batch_id = batch_id
        self.refusals = tuple(refusals)


@contextmanager
def queue_call(operation: str) -> Iterator[None]:
    """Turn every failure of the AWS call inside into `QueueUnavailableError`."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        # The code or class only: `ParamValidationError`, for one, prints the parameters, and so the message's body.
        fault = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else type(error).__name__
        msg = f"{operation} failed: {fault}"
        raise QueueUnavailableError(msg) from None
