"""The AWS clients of the queue entrance; region and credentials come from the standard `AWS_*` variables."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from signer.errors import ConfigurationError
from signer.settings import PayloadSettings, SqsSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_RECEIVER_AND_HEARTBEAT: Final = 2
_CONNECT_TIMEOUT_S: Final = 5
_ANSWER_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Clients:
    """What every thread of the entrance shares; none of them retries on its own, see `calls.insist`."""

    queues: "SQSClient"
    objects: "S3Client | None"
    """None where bodies lie in the queues alone."""

    def close(self) -> None:
        """Let go of their connections."""
        self.queues.close()
        if self.objects is not None:
            self.objects.close()


def make_clients(settings: SqsSettings) -> Clients:
    """Build them (the first in a process costs up to a second); raises `ConfigurationError`."""
    payloads = settings.payloads
    return Clients(make_client(settings), None if payloads is None else _object_client(payloads, settings))


def make_client(settings: SqsSettings) -> "SQSClient":
    """Build the SQS client alone; raises `ConfigurationError`."""
    # An empty long poll answers only after `wait_s`.
    config = _config(settings.max_batches_in_flight + _RECEIVER_AND_HEARTBEAT, settings.wait_s + _ANSWER_TIMEOUT_S)
    try:
        return boto3.client("sqs", region_name=_region(), endpoint_url=settings.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        msg = f"the SQS client cannot be made ({type(error).__name__}): check AWS_REGION and sqs.endpoint_url"
        raise ConfigurationError(msg) from None


def _object_client(payloads: PayloadSettings, settings: SqsSettings) -> "S3Client":
    config = _config(settings.max_batches_in_flight, _ANSWER_TIMEOUT_S)
    try:
        return boto3.client("s3", region_name=_region(), endpoint_url=payloads.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        msg = f"the S3 client cannot be made ({type(error).__name__}): check AWS_REGION and sqs.payloads.endpoint_url"
        raise ConfigurationError(msg) from None


def _config(connections: int, read_timeout_s: int) -> Config:
    return Config(
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        tcp_keepalive=True,
    )


def _region() -> str | None:
    # Containers are given AWS_REGION; boto3 by itself reads AWS_DEFAULT_REGION only.
    return os.environ.get("AWS_REGION") or None
