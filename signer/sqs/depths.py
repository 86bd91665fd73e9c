"""How full the queues are, and how often the inbound queue delivers; asks, and touches no message."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signer.errors import SignerError
from signer.settings import SqsSettings
from signer.sqs.calls import insist
from signer.sqs.inbound import queue_name
from signer.sqs.redrive import Redrive, queue_attributes, redrive_of

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, slots=True)
class Depth:
    """One queue; SQS itself calls the numbers approximate, and None is what it did not tell."""

    role: str
    queue: str
    waiting: int | None = None
    in_flight: int | None = None
    """Received by somebody, and hidden from everybody else."""
    delayed: int | None = None
    moves_after: int | None = None
    """So many receives, and the message goes to the dead-letter queue."""
    problem: str | None = None


def depths(client: "SQSClient", settings: SqsSettings) -> list[Depth]:
    """Look at inbound, outbound and quarantine queue, and at the dead-letter queue if the inbound queue has one."""
    found = [_depth(client, role, getattr(settings, f"{role}_url")) for role in ("inbound", "outbound", "quarantine")]
    try:
        redrive = redrive_of(queue_attributes(client, settings.inbound_url))
    except SignerError:
        return found
    return found if redrive is None else [*found, _dead_letters(client, redrive)]


def _dead_letters(client: "SQSClient", redrive: Redrive) -> Depth:
    *_, account, name = redrive.dead_letter_arn.split(":")
    try:
        url = insist(
            "GetQueueUrl", lambda: client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        )
    except SignerError as error:
        return Depth("dead_letter", name, problem=error.message)
    return _depth(client, "dead_letter", url)


def _depth(client: "SQSClient", role: str, url: str) -> Depth:
    try:
        attributes = queue_attributes(client, url)
        redrive = redrive_of(attributes)
    except SignerError as error:
        return Depth(role, queue_name(url), problem=error.message)
    return Depth(
        role,
        queue_name(url),
        _number(attributes, "ApproximateNumberOfMessages"),
        _number(attributes, "ApproximateNumberOfMessagesNotVisible"),
        _number(attributes, "ApproximateNumberOfMessagesDelayed"),
        None if redrive is None else redrive.max_receive_count,
    )


def _number(attributes: Mapping[str, str], name: str) -> int | None:
    text = attributes.get(name, "")
    return int(text) if text.isdecimal() else None
