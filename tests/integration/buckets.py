"""A bucket seen from outside the service, and messages whose body lies in it."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from mypy_boto3_s3 import S3Client
from mypy_boto3_sqs.type_defs import MessageTypeDef

from tests.integration.queues import Queue

POINTER = "software.amazon.payloadoffloading.PayloadS3Pointer"


@dataclass(frozen=True)
class Bucket:
    """One bucket; bodies lie below `inbound/`."""

    client: S3Client
    name: str

    def put(self, body: str, **parameters: Any) -> str:
        """Store a body as a sender does, and give its key."""
        key = f"inbound/{uuid4()}"
        self.client.put_object(Bucket=self.name, Key=key, Body=body.encode(), **parameters)
        return key

    def put_in_parts(self, body: str) -> str:
        """Store a body in parts, of which each has a checksum and the whole has none; gives its key."""
        key = f"inbound/{uuid4()}"
        upload = self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        part = self.client.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=1, Body=body.encode())
        self.client.complete_multipart_upload(
            Bucket=self.name,
            Key=key,
            UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        )
        return key

    def send(self, queue: Queue, key: str, size: int, **attributes: str | bytes) -> str:
        """Send a pointer to this key; gives the id of the message."""
        body = json.dumps([POINTER, {"s3BucketName": self.name, "s3Key": key}])
        return queue.put(body, ExtendedPayloadSize=size, **attributes)

    def put_and_send(self, queue: Queue, body: str) -> str:
        """Do both, as the Extended Client does; gives the key."""
        key = self.put(body)
        self.send(queue, key, len(body.encode()))
        return key

    def get(self, message: MessageTypeDef) -> bytes:
        """Fetch what a message points at, as the Extended Client does, and check the size that it says."""
        (name, place) = json.loads(message["Body"])
        assert name == POINTER
        body = self.client.get_object(Bucket=place["s3BucketName"], Key=place["s3Key"])["Body"].read()
        size = message["MessageAttributes"]["ExtendedPayloadSize"]
        assert (size["DataType"], int(size["StringValue"])) == ("Number", len(body))
        return body

    @property
    def stored(self) -> list[str]:
        """The keys of all signed batches."""
        found = self.client.list_objects_v2(Bucket=self.name, Prefix="signed/")
        return [each["Key"] for each in found.get("Contents", [])]
