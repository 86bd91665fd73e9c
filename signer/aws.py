"""What every client of AWS has in common: how it is made, and which of its failures may pass."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError

from signer.errors import ConfigurationError, UnavailableError

Answer = TypeVar("Answer")

_ATTEMPTS: Final = 3
_FIRST_PAUSE_S: Final = 0.25
_SERVER_FAULT: Final = 500
_NO_ANSWER: Final = (HTTPClientError, IncompleteReadError, ResponseStreamingError)
_LATER: Final = frozenset(
    {
        *("RequestThrottled", "Throttling", "ThrottlingException", "KmsThrottled", "SlowDown", "RequestTimeout"),
        # DynamoDB's words for it, and two transactions that meet in one item.
        *("ProvisionedThroughputExceededException", "RequestLimitExceeded"),
        *("TransactionConflictException", "TransactionInProgressException"),
        # Two write the same S3 object at once.
        "ConditionalRequestConflict",
    }
)
_RANDOM: Final = random.SystemRandom()


def client_config(connections: int, connect_timeout_s: float, read_timeout_s: float) -> Config:
    """Give what a client is made with: it never retries on its own, see `insist`."""
    return Config(
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        tcp_keepalive=True,
    )


def region() -> str | None:
    """Give the region of the environment, if there is one."""
    # Containers are given AWS_REGION; boto3 by itself reads AWS_DEFAULT_REGION only.
    return os.environ.get("AWS_REGION") or None


@contextmanager
def making_client(service: str, setting: str) -> Iterator[None]:
    """Let what botocore says of a client that cannot be made come out as `ConfigurationError`."""
    try:
        yield
    except (BotoCoreError, ValueError) as error:
        msg = f"the {service} client cannot be made ({type(error).__name__}): check AWS_REGION and {setting}"
        raise ConfigurationError(msg) from None


def _nothing() -> None:
    return


def insist(
    operation: str,
    attempt: Callable[[], Answer],
    error_type: Callable[[str], UnavailableError],
    before_each: Callable[[], None] = _nothing,
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
            if failures == _ATTEMPTS or not may_pass(error):
                msg = f"{operation} failed: {name_of(error)}"
                raise error_type(msg) from None
        time.sleep(_RANDOM.uniform(0, _FIRST_PAUSE_S * 2**failures))


def code_of(error: BotoCoreError | ClientError) -> str | None:
    """Give AWS's code; None if it was not AWS that failed."""
    return str(error.response.get("Error", {}).get("Code")) if isinstance(error, ClientError) else None


def name_of(error: BotoCoreError | ClientError) -> str:
    """Give the code or class only: `ParamValidationError`, for one, prints the parameters, and so the message."""
    return code_of(error) or type(error).__name__


def may_pass(error: BotoCoreError | ClientError) -> bool:
    """Tell whether the same call may do better in a moment."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= _SERVER_FAULT or code_of(error) in _LATER
    return isinstance(error, _NO_ANSWER)
