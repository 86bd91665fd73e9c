"""Bodies that a queue does not take lie in S3: fetched with care, checked before use, and stored once."""

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from signer.demo.stack import Emulator
from signer.settings import PayloadSettings, SqsSettings
from signer.sqs.client import make_clients
from signer.sqs.payload import PayloadStore
from tests.integration.aws_faults import Call
from tests.integration.buckets import Bucket
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import Queues, batch, until
from tests.integration.test_sqs_quarantine import reasons_of

SMALL = 2048
OWNER = "000000000000"


@pytest.fixture
def bucket(emulator: Emulator) -> Bucket:
    return Bucket(emulator.s3, emulator.create_bucket(f"bodies-{uuid4().hex[:12]}"))


@pytest.fixture
def payloads(emulator: Emulator, bucket: Bucket) -> dict[str, Any]:
    """Settings that let bodies lie in the bucket."""
    return {"bucket": bucket.name, "accept": {f"{bucket.name}/inbound/"}, "endpoint_url": emulator.url}


def object_calls(entrance: Entrance, operation: str) -> list[Call]:
    """Give the calls to S3 of one operation."""
    assert entrance.object_faults is not None
    return entrance.object_faults.of(operation)


def headers_of(call: Call) -> dict[str, str]:
    """Give the headers of a call, their names in lower case, as text."""
    headers: dict[str, Any] = dict(call.request.headers.items())
    return {name.lower(): value.decode() if isinstance(value, bytes) else str(value) for name, value in headers.items()}


def large(count: int = 9, **changes: Any) -> str:
    """A batch that is signed beyond `SMALL`."""
    return batch(*(f"TXN-{number}" for number in range(count)), **changes)


def test_a_body_in_s3_is_signed_as_one_in_the_message_is(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """What a sender with the Extended Client stored comes out signed; small enough, it goes out in the message."""
    entrance = start_entrance(payloads=payloads)
    bucket.put_and_send(entrance.queues.inbound, batch("TXN-1"))
    (message,) = entrance.queues.outbound.take()
    signed = json.loads(message["Body"])
    assert [transaction["transaction_id"] for transaction in signed["transactions"]] == ["TXN-1"]
    assert "ExtendedPayloadSize" not in message["MessageAttributes"]
    assert bucket.stored == []


def test_a_large_signed_batch_goes_out_as_a_pointer(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """It lies under its hash, which its message names, and is what the queue would have got if it took as much."""
    entrance = start_entrance(payloads=payloads, max_message_bytes=SMALL)
    entrance.queues.inbound.put(large())
    (message,) = entrance.queues.outbound.take()
    body = bucket.get(message)
    digest = hashlib.sha256(body).hexdigest()
    assert len(body) > SMALL
    assert bucket.stored == [f"signed/{digest}"]
    assert message["MessageAttributes"]["content_sha256"]["StringValue"] == digest
    assert message["MessageAttributes"]["batch_id"]["StringValue"] == "STL-1"
    assert all("signature" in transaction for transaction in json.loads(body)["transactions"])


def test_it_is_not_stored_again_on_redelivery(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """A batch whose message could not be deleted, and one that is sent twice, find their object lying there."""
    entrance = start_entrance(payloads=payloads, max_message_bytes=SMALL)
    with entrance.faults.refused("DeleteMessageBatch", "AccessDenied"):
        entrance.queues.inbound.put(large())
        entrance.wait_for("returned")
    (key,) = bucket.stored
    # S3 tells an object's age in seconds: one that says of itself that it was written first tells more.
    bucket.client.copy_object(
        Bucket=bucket.name,
        Key=key,
        CopySource={"Bucket": bucket.name, "Key": key},
        Metadata={"first": "yes"},
        MetadataDirective="REPLACE",
        ChecksumAlgorithm="SHA256",
    )
    entrance.queues.inbound.put(large())
    entrance.wait_for("forwarded", 2)
    entrance.drain()
    assert bucket.stored == [key]
    assert bucket.client.head_object(Bucket=bucket.name, Key=key)["Metadata"] == {"first": "yes"}
    assert len(entrance.queues.outbound.take(entrance.queues.outbound.depth)) >= 3
    assert all(headers_of(call)["if-none-match"] == "*" for call in object_calls(entrance, "PutObject"))


def test_what_lies_there_and_is_something_else_is_replaced(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """An object under the right name with the wrong content is written over before anybody is sent there."""
    entrance = start_entrance(payloads=payloads, max_message_bytes=SMALL)
    entrance.queues.inbound.put(large())
    entrance.queues.outbound.take()
    (key,) = bucket.stored
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"junk", ChecksumAlgorithm="SHA256")
    entrance.queues.inbound.put(large())
    (message,) = entrance.queues.outbound.take()
    assert hashlib.sha256(bucket.get(message)).hexdigest() == key.removeprefix("signed/")


def test_one_that_grows_old_is_stored_anew(emulator: Emulator, queues: Queues, payloads: dict[str, Any]) -> None:
    """A lifecycle rule could take an old object away before its new message is read: it is written again."""
    now = [datetime.now(UTC)]
    settings = SqsSettings(
        inbound_url=queues.inbound.url,
        outbound_url=queues.outbound.url,
        quarantine_url=queues.quarantine.url,
        endpoint_url=emulator.url,
        payloads=PayloadSettings(**payloads),
    )
    clients = make_clients(settings)
    assert clients.objects is not None
    assert settings.payloads is not None
    puts: list[bool] = []
    clients.objects.meta.events.register(
        "before-send.s3.PutObject", lambda request, **_: puts.append("If-None-Match" in request.headers)
    )
    store = PayloadStore(clients.objects, settings.payloads, lambda: now[0])
    body = b"a signed batch"
    for days, wanted in ((0, [True]), (0.9, [True, True]), (1.1, [True, True, True, False])):
        now[0] = datetime.now(UTC) + timedelta(days=days)
        pointer = store.keep(body, hashlib.sha256(body).hexdigest())
        assert (pointer.size_bytes, puts) == (len(body), wanted)
    clients.close()


def test_it_is_encrypted_and_the_owner_is_asked_for(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """With the settings, what is stored is encrypted under that key, and every call names who must own the bucket."""
    kms_key = f"arn:aws:kms:eu-central-1:{OWNER}:key/11111111-2222-3333-4444-555555555555"
    settings = {**payloads, "kms_key": kms_key, "bucket_owner": OWNER}
    entrance = start_entrance(payloads=settings, max_message_bytes=SMALL)
    for _ in range(2):
        bucket.put_and_send(entrance.queues.inbound, large())
    entrance.wait_for("forwarded", 2)
    found = bucket.client.head_object(Bucket=bucket.name, Key=bucket.stored[0])
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", kms_key)
    calls = [call for name in ("GetObject", "PutObject", "HeadObject") for call in object_calls(entrance, name)]
    assert {call.operation for call in calls} == {"GetObject", "PutObject", "HeadObject"}
    assert {headers_of(call)["x-amz-expected-bucket-owner"] for call in calls} == {OWNER}


@pytest.mark.parametrize(("name", "key"), [("other", "inbound/b"), ("{}", "outbound/b"), ("{}-inbound", "inbound/b")])
def test_only_named_places_are_fetched_from(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any], name: str, key: str
) -> None:
    """A pointer to any other bucket or folder is set aside, and S3 is not even asked."""
    entrance = start_entrance(payloads=payloads)
    Bucket(bucket.client, name.format(bucket.name)).send(entrance.queues.inbound, key, 1000)
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "payload_not_allowed"
    assert object_calls(entrance, "GetObject") == []


def test_without_the_setting_every_pointer_is_refused(entrance: Entrance, bucket: Bucket) -> None:
    """Who has not said where bodies may lie fetches none; the entry stays a pointer that can be fetched later."""
    key = bucket.put_and_send(entrance.queues.inbound, batch("TXN-1"))
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "payload_not_allowed"
    assert json.loads(message["Body"])[1] == {"s3BucketName": bucket.name, "s3Key": key}
    assert bucket.get(message) == batch("TXN-1").encode()


def test_a_body_beyond_the_limit_is_refused_unread(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """What says of itself that it is too large is not fetched; a byte less would be."""
    entrance = start_entrance(payloads={**payloads, "max_bytes": 1024})
    bucket.send(entrance.queues.inbound, bucket.put("x" * 1025), 1025)
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "payload_too_large"
    assert object_calls(entrance, "GetObject") == []
    bucket.send(entrance.queues.inbound, bucket.put("x" * 1024), 1024)
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "invalid_json"


@pytest.mark.parametrize("stated", [10, 10_000])
def test_another_size_than_was_said_is_looked_at_five_times(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any], stated: int
) -> None:
    """A body of another size is never used; it may yet come right, and is given up at the fifth delivery."""
    entrance = start_entrance(payloads=payloads)
    bucket.send(entrance.queues.inbound, bucket.put(batch("TXN-1")), stated)
    (message,) = entrance.queues.quarantine.take()
    assert (reasons_of(message)["code"], reasons_of(message)["receive_count"]) == ("payload_mismatch", 5)
    assert {line["code"] for line in entrance.lines("batch.returned")} == {"payload_unavailable"}
    assert entrance.simulation.ledger.bound == {}


def test_an_absent_body_that_comes_late_is_signed(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """What is absent at first is looked for again, and what never comes is set aside as absent."""
    entrance = start_entrance(payloads=payloads)
    body = batch("TXN-1")
    bucket.send(entrance.queues.inbound, "inbound/never", len(body))
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "payload_absent"
    bucket.send(entrance.queues.inbound, "inbound/late", len(body))
    entrance.wait_for("returned", 5)
    bucket.client.put_object(Bucket=bucket.name, Key="inbound/late", Body=body.encode())
    entrance.wait_for("forwarded")


def spoilt(call: Call) -> AWSResponse:
    """Let S3 answer, and change one byte on the way."""
    answer = call.send()
    content = io.BytesIO(answer.content.replace(b"1250.00", b"9250.00"))
    headers = HTTPHeaders()
    for name, value in answer.headers.items():
        headers[name] = value
    return AWSResponse(call.request.url, answer.status_code, headers, content)


# CRC64NVME, which S3 reckons for senders who give none, is nothing that botocore knows by itself.
@pytest.mark.parametrize("algorithm", ["SHA256", "CRC64NVME"])
def test_a_body_that_is_not_what_was_stored_is_never_used(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any], algorithm: str
) -> None:
    """One byte changed, of the same size and still JSON: the checksum gives it away, and an honest copy is signed."""
    entrance = start_entrance(payloads=payloads)
    assert entrance.object_faults is not None
    body = batch("TXN-1")
    with entrance.object_faults.first(2, "GetObject", spoilt):
        key = bucket.put(body, ChecksumAlgorithm=algorithm)
        bucket.send(entrance.queues.inbound, key, len(body))
        entrance.wait_for("forwarded")
    assert [line["code"] for line in entrance.lines("batch.returned")] == ["payload_unavailable"] * 2
    assert "checksum" in entrance.lines("batch.returned")[0]["reason"]
    assert "1250.00" in entrance.queues.outbound.take()[0]["Body"]


def test_a_body_without_a_checksum_of_the_whole_is_never_used(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """Its size alone says little: it is set aside, and says what is wrong."""
    entrance = start_entrance(payloads=payloads)
    body = batch("TXN-1")
    bucket.send(entrance.queues.inbound, bucket.put_in_parts(body), len(body))
    (message,) = entrance.queues.quarantine.take()
    assert reasons_of(message)["code"] == "payload_mismatch"
    assert "no checksum" in reasons_of(message)["message"]
    assert entrance.simulation.ledger.bound == {}


@pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown"), (500, "InternalError")])
def test_trouble_with_s3_is_waited_out(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any], operation: str, status: int, code: str
) -> None:
    """While S3 does not give or take, the message stays; nothing is set aside, and then it goes out once."""
    entrance = start_entrance(payloads=payloads, max_message_bytes=SMALL)
    assert entrance.object_faults is not None
    with entrance.object_faults.first(3, operation, lambda call: call.refuse(status, code)):
        bucket.put_and_send(entrance.queues.inbound, large())
        entrance.wait_for("forwarded")
    entrance.drain()
    assert {line["code"] for line in entrance.lines("batch.returned")} == {"payload_unavailable"}
    assert (entrance.queues.outbound.depth, entrance.queues.quarantine.depth) == (1, 0)


def test_an_answer_of_s3_that_is_lost_changes_nothing(
    start_entrance: StartEntrance, bucket: Bucket, payloads: dict[str, Any]
) -> None:
    """Stored, and nobody heard of it: the next try finds it lying there."""
    entrance = start_entrance(payloads=payloads, max_message_bytes=SMALL)
    assert entrance.object_faults is not None
    with entrance.object_faults.answer_lost("PutObject"):
        entrance.queues.inbound.put(large())
        until(lambda: len(bucket.stored) == 1, "it to be stored")
    (message,) = entrance.queues.outbound.take()
    assert hashlib.sha256(bucket.get(message)).hexdigest() == bucket.stored[0].removeprefix("signed/")
