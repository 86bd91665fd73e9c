"""The one SQS client of the process; region and credentials come from the standard `AWS_*` variables."""

import os
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from signer.errors import ConfigurationError
from signer.settings import SqsSettings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_RECEIVER_AND_HEARTBEAT: Final = 2
_CONNECT_TIMEOUT_S: Final = 5
_ANSWER_TIMEOUT_S: Final = 10
_ATTEMPTS: Final = 3


def make_client(settings: SqsSettings) -> "SQSClient":
    """Build the client that every thread shares (it costs about a second); raises `ConfigurationError`."""
    config = Config(
        max_pool_connections=settings.max_batches_in_flight + _RECEIVER_AND_HEARTBEAT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_TIMEOUT_S,
        # An empty long poll answers only after `wait_s`.
        read_timeout=settings.wait_s + _ANSWER_TIMEOUT_S,
        tcp_keepalive=True,
    )
    # Containers are given AWS_REGION; boto3 by itself reads AWS_DEFAULT_REGION only.
    region = os.environ.get("AWS_REGION") or None
    try:
        return boto3.client("sqs", region_name=region, endpoint_url=settings.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        msg = f"the SQS client cannot be made ({type(error).__name__}): check AWS_REGION and sqs.endpoint_url"
        raise ConfigurationError(msg) from None
