"""Calls to SQS and S3: made again where the answer was lost or says "later", and never once the message is lost."""

from collections.abc import Callable
from typing import TypeVar

from signer import aws
from signer.aws import code_of
from signer.errors import UnavailableError
from signer.sqs.errors import QueueUnavailableError

__all__ = ["code_of", "insist"]

Answer = TypeVar("Answer")


def _nothing() -> None:
    return


def insist(
    operation: str,
    attempt: Callable[[], Answer],
    before_each: Callable[[], None] = _nothing,
    error_type: type[UnavailableError] = QueueUnavailableError,
) -> Answer:
    """Insist as `aws.insist` does; what fails is a queue, unless `error_type` says otherwise."""
    return aws.insist(operation, attempt, error_type, before_each)
