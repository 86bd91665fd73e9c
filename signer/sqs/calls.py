"""Calls to AWS: made again where the answer was lost or says "later", and never once the message is somebody else's."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError

from signer.errors import UnavailableError
from signer.sqs.errors import QueueUnavailableError

Answer = TypeVar("Answer")

_ATTEMPTS: Final = 3
_FIRST_PAUSE_S: Final = 0.25
_SERVER_FAULT: Final = 500
_NO_ANSWER: Final = (HTTPClientError, IncompleteReadError, ResponseStreamingError)
_LATER: Final = frozenset(
    {
        *("RequestThrottled", "Throttling", "ThrottlingException", "KmsThrottled", "SlowDown", "RequestTimeout"),
        # Two write the same S3 object at once.
        "ConditionalRequestConflict",
    }
)
_RANDOM: Final = random.SystemRandom()


def _nothing() -> None:
    return


def insist(
    operation: str,
    attempt: Callable[[], Answer],
    before_each: Callable[[], None] = _nothing,
    error_type: type[UnavailableError] = QueueUnavailableError,
) -> Answer:
    """Give what `attempt` gives; it is made up to three times, `before_each` first, which ends it by raising.

    So that a retry comes under the same guard as the call itself, the client must not retry on its own. Every failure
    of AWS's becomes `error_type`; whether the call took effect is unknown then.
    """
    failures = 0
    while True:
        before_each()
        try:
            return attempt()
        except (BotoCoreError, ClientError) as error:
            failures += 1
            if failures == _ATTEMPTS or not _may_pass(error):
                # The code or class only: `ParamValidationError`, for one, prints the parameters, and so the message.
                msg = f"{operation} failed: {code_of(error) or type(error).__name__}"
                raise error_type(msg) from None
        time.sleep(_RANDOM.uniform(0, _FIRST_PAUSE_S * 2**failures))


def code_of(error: BotoCoreError | ClientError) -> str | None:
    """Give AWS's code; None if it was not AWS that failed."""
    return str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else None


def _may_pass(error: BotoCoreError | ClientError) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= _SERVER_FAULT or code_of(error) in _LATER
    return isinstance(error, _NO_ANSWER)
