"""The proxy lets calls go wrong as it was told, one at a time, between a real client and a real endpoint."""

import threading
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)
from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs import SQSClient

from signer.demo.stack import Emulator
from tests.chaos import faults
from tests.chaos.proxy import Loop, Proxy

BROKEN = (ConnectionClosedError, ReadTimeoutError)
SESSION = boto3.Session("test", "test", region_name="eu-central-1")
IMPATIENT = Config(retries={"total_max_attempts": 1}, read_timeout=1, connect_timeout=1)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with closing(Emulator(tmp_path_factory.mktemp("emulator"))) as running:
        yield running


@pytest.fixture
def proxy(emulator: Emulator) -> Iterator[Proxy]:
    with closing(Loop()) as loop, closing(Proxy(loop, emulator.url)) as running:
        yield running


@pytest.fixture
def sqs(proxy: Proxy) -> Iterator[SQSClient]:
    client = SESSION.client("sqs", endpoint_url=proxy.url, config=IMPATIENT)
    with closing(client):
        yield client


@pytest.fixture
def url(emulator: Emulator) -> str:
    return emulator.sqs.create_queue(QueueName=f"proxy-{uuid4().hex}")["QueueUrl"]


def depth(emulator: Emulator, url: str) -> int:
    """Count the messages without the proxy; those in flight are not among them."""
    answer = emulator.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def test_calls_pass_unchanged(proxy: Proxy, sqs: SQSClient, url: str) -> None:
    """What is sent through it comes back through it."""
    proxy.keeps = True
    sqs.send_message(QueueUrl=url, MessageBody="hello ü" * 10_000)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["Body"] == "hello ü" * 10_000
    assert [exchange.operation for exchange in proxy.exchanges] == ["SendMessage", "ReceiveMessage"]


def test_objects_pass_unchanged(proxy: Proxy, emulator: Emulator) -> None:
    """S3's requests, which ask whether they may go on, and its answers without a body."""
    bucket = emulator.create_bucket(f"proxy-{uuid4().hex}")
    body = bytes(range(256)) * 5000
    s3: S3Client = SESSION.client("s3", endpoint_url=proxy.url, config=IMPATIENT)
    with closing(s3):
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == len(body)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
        strike = proxy.next("GetObject", faults.throttled)
        with pytest.raises(ClientError, match="SlowDown"):
            s3.get_object(Bucket=bucket, Key="k")
        assert strike.wait()


@pytest.mark.parametrize("kind", ["reset", "hung", "http_500", "http_503", "throttled"])
def test_a_call_that_fails_was_never_made(
    proxy: Proxy, sqs: SQSClient, emulator: Emulator, url: str, kind: str
) -> None:
    """The client is told, or told nothing; the queue is as it was; the next call passes."""
    strike = proxy.next("SendMessage", faults.KINDS[kind].fault)
    with pytest.raises((ClientError, *BROKEN)):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    assert strike.wait()
    assert depth(emulator, url) == 0
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert depth(emulator, url) == 1


def test_a_call_whose_answer_is_lost_was_made(proxy: Proxy, sqs: SQSClient, emulator: Emulator, url: str) -> None:
    """The client hears nothing; the message is there."""
    proxy.next("SendMessage", faults.answer_lost)
    with pytest.raises(BROKEN):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    assert depth(emulator, url) == 1


def test_a_slow_call_is_made_after_its_time(proxy: Proxy, sqs: SQSClient, emulator: Emulator, url: str) -> None:
    """It is under way before, and done after."""
    strike = proxy.next("SendMessage", faults.slow(0.5))
    sender = threading.Thread(target=lambda: sqs.send_message(QueueUrl=url, MessageBody="x"))
    sender.start()
    assert strike.wait()
    assert depth(emulator, url) == 0
    sender.join()
    assert depth(emulator, url) == 1


def test_a_lost_lease_is_really_lost(proxy: Proxy, sqs: SQSClient, emulator: Emulator, url: str) -> None:
    """AWS says that the message is not in flight, and others can have it."""
    for operation in ("ChangeMessageVisibilityBatch", "DeleteMessageBatch"):
        sqs.send_message(QueueUrl=url, MessageBody="x")
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        assert depth(emulator, url) == 0
        proxy.next(operation, faults.lease_lost)
        handle = message["ReceiptHandle"]
        if operation == "DeleteMessageBatch":
            answer = sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "0", "ReceiptHandle": handle}])
        else:
            entry = {"Id": "0", "ReceiptHandle": handle, "VisibilityTimeout": 30}
            answer = sqs.change_message_visibility_batch(QueueUrl=url, Entries=[entry])  # type: ignore[list-item] # a dict is one
        assert [failed["Code"] for failed in answer["Failed"]] == ["MessageNotInflight"]
        assert depth(emulator, url) == 1
        emulator.sqs.purge_queue(QueueUrl=url)


def test_a_refused_connection_can_be_made_later(proxy: Proxy, sqs: SQSClient, url: str) -> None:
    """While it is refused, connections that stood before are broken off, too."""
    sqs.send_message(QueueUrl=url, MessageBody="x")
    with proxy.refusing(), pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.send_message(QueueUrl=url, MessageBody="x")


def test_a_fault_that_was_withdrawn_meets_nothing(proxy: Proxy, sqs: SQSClient, url: str) -> None:
    """One that has met its call cannot be taken back."""
    strike = proxy.next("SendMessage", faults.reset)
    assert proxy.withdraw(strike)
    sqs.send_message(QueueUrl=url, MessageBody="x")
    other = proxy.next("SendMessage", faults.slow(0))
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert not proxy.withdraw(other)
