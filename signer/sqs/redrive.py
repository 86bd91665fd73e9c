"""How often the inbound queue delivers a message before it moves it to its dead-letter queue, unexplained."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from signer.logs import Logger
from signer.settings import SqsSettings
from signer.sqs.calls import insist
from signer.sqs.errors import QueueUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_LOOK_AGAIN_S: Final = 300.0
_SOON_S: Final = 15.0
"""After a look in vain: meanwhile a batch could become a dead letter."""


@dataclass(frozen=True, slots=True)
class Redrive:
    """After how many receives a message moves, and where to."""

    max_receive_count: int
    dead_letter_arn: str


class RedriveLimit:
    """The queue's `maxReceiveCount`, less what the settings keep in reserve; looked up every five minutes."""

    def __init__(
        self,
        client: "SQSClient",
        settings: SqsSettings,
        logger: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = settings.inbound_url
        self._reserve = settings.redrive_reserve
        self._logger = logger
        self._clock = clock
        self._look_at_s = clock()
        self._problem: str | None = None
        self.last_try: int | None = None
        """The receive whose failure sets a batch aside; None while the queue has no such limit, or nobody knows it."""

    def look(self) -> None:
        """Ask the queue if it is time to; what it said last holds while it does not answer."""
        if self._clock() < self._look_at_s:
            return
        self._look_at_s = self._clock() + _LOOK_AGAIN_S
        try:
            redrive = redrive_of(queue_attributes(self._client, self._url))
        except QueueUnavailableError as error:
            if error.message != self._problem:
                self._logger.warning("queue.redrive_unknown", reason=error.message)
            self._problem = error.message
            self._look_at_s = self._clock() + _SOON_S
            return
        self._problem = None
        self.last_try = None if redrive is None else max(1, redrive.max_receive_count - self._reserve)


def queue_attributes(client: "SQSClient", url: str) -> dict[str, str]:
    """Give every attribute of a queue; raises `QueueUnavailableError`."""
    answer = insist("GetQueueAttributes", lambda: client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))
    return {str(name): value for name, value in answer.get("Attributes", {}).items()}


def redrive_of(attributes: Mapping[str, str]) -> Redrive | None:
    """Read the redrive policy out of a queue's attributes; raises `QueueUnavailableError` if it makes no sense."""
    policy = attributes.get("RedrivePolicy")
    if policy is None:
        return None
    try:
        document = json.loads(policy)
        # Older policies hold it as a string.
        return Redrive(int(document["maxReceiveCount"]), str(document["deadLetterTargetArn"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        msg = "the queue's redrive policy cannot be read"
        raise QueueUnavailableError(msg) from None
