"""The SQS client is made from settings and `AWS_*` variables, and says what is missing."""

import os
from contextlib import closing
from typing import Any

import pytest

from signer.errors import ConfigurationError
from signer.settings import SqsSettings
from signer.sqs.client import make_client

SETTINGS = SqsSettings(
    inbound_url="https://queue/in", outbound_url="https://queue/out", quarantine_url="https://queue/q", wait_s=20
)


@pytest.fixture(autouse=True)
def no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_comes_from_either_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Containers are given AWS_REGION, and boto3 users know AWS_DEFAULT_REGION."""
    monkeypatch.setenv(name, "eu-central-1")
    with closing(make_client(SETTINGS)) as client:
        assert client.meta.region_name == "eu-central-1"


def test_an_answer_may_take_longer_than_the_long_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty long poll is no time-out, and each thread has its connection."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with closing(make_client(SETTINGS)) as client:
        config: Any = client.meta.config
        assert config.read_timeout > SETTINGS.wait_s
        assert config.max_pool_connections >= SETTINGS.max_batches_in_flight + 2


@pytest.mark.parametrize("region", [None, "not a region"])
def test_a_client_that_cannot_be_made_is_a_matter_of_settings(
    monkeypatch: pytest.MonkeyPatch, region: str | None
) -> None:
    """Without a usable region the service refuses to start, and says what to look at."""
    if region:
        monkeypatch.setenv("AWS_REGION", region)
    with pytest.raises(ConfigurationError, match="AWS_REGION"):
        make_client(SETTINGS)
