"""The AWS clients of the queue entrance; region and credentials come from the standard `AWS_*` variables."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import boto3

from signer.aws import client_config, making_client, region
from signer.settings import PayloadSettings, SqsSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_RECEIVER_AND_HEARTBEAT: Final = 2
_CONNECT_TIMEOUT_S: Final = 5
_ANSWER_TIMEOUT_S: Final = 10
_CALLS_IN_A_LEASE: Final = 9
"""A call of the heartbeat that hangs is made twice more before the next beat is due."""
_SHORTEST_CALL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Clients:
    """What every thread of the entrance shares; none of them retries on its own, see `calls.insist`."""

    queues: "SQSClient"
    leases: "SQSClient"
    """The same queues, for calls that must come before a lease runs out."""
    objects: "S3Client | None"
    """None where bodies lie in the queues alone."""

    def close(self) -> None:
        """Let go of their connections."""
        self.queues.close()
        self.leases.close()
        if self.objects is not None:
            self.objects.close()


def make_clients(settings: SqsSettings) -> Clients:
    """Build them (the first in a process costs up to a second); raises `ConfigurationError`."""
    payloads = settings.payloads
    objects = None if payloads is None else _object_client(payloads, settings)
    call_s = min(_ANSWER_TIMEOUT_S, max(_SHORTEST_CALL_S, settings.visibility_timeout_s / _CALLS_IN_A_LEASE))
    return Clients(make_client(settings), _queue_client(settings, call_s, call_s), objects)


def make_client(settings: SqsSettings) -> "SQSClient":
    """Build the SQS client alone; raises `ConfigurationError`."""
    # An empty long poll answers only after `wait_s`.
    return _queue_client(settings, _CONNECT_TIMEOUT_S, settings.wait_s + _ANSWER_TIMEOUT_S)


def _queue_client(settings: SqsSettings, connect_timeout_s: float, answer_timeout_s: float) -> "SQSClient":
    connections = settings.max_batches_in_flight + _RECEIVER_AND_HEARTBEAT
    config = client_config(connections, connect_timeout_s, answer_timeout_s)
    with making_client("SQS", "sqs.endpoint_url"):
        return boto3.client("sqs", region_name=region(), endpoint_url=settings.endpoint_url, config=config)


def _object_client(payloads: PayloadSettings, settings: SqsSettings) -> "S3Client":
    config = client_config(settings.max_batches_in_flight, _CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S)
    with making_client("S3", "sqs.payloads.endpoint_url"):
        return boto3.client("s3", region_name=region(), endpoint_url=payloads.endpoint_url, config=config)
