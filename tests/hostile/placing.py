"""Puts a hostile message where its sender would: into the message if a queue takes it, else into S3."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mypy_boto3_s3 import S3Client

from tests.hostile.hostile import Hostile, pointing

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef


@dataclass(frozen=True, slots=True)
class Placed:
    """What is sent."""

    body: str
    attributes: "Mapping[str, MessageAttributeValueOutputTypeDef]"


class Places:
    """One bucket."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._placed = 0

    def place(self, hostile: Hostile) -> Placed:
        """Store what lies in S3, and give the message."""
        message = hostile if hostile.fits_a_queue else self._pointer_to(hostile)
        if message.stored is not None:
            key, content = message.stored
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content)
        body = message.content.decode().replace("{bucket}", self._bucket)
        if message.size_text is None:
            return Placed(body, {})
        return Placed(body, {"ExtendedPayloadSize": {"DataType": "Number", "StringValue": message.size_text}})

    def body_of(self, hostile: Hostile) -> bytes:
        """Give what is to be read in the end."""
        return hostile.content if hostile.stored is None else hostile.stored[1]

    def _pointer_to(self, hostile: Hostile) -> Hostile:
        self._placed += 1
        key = f"inbound/placed-{self._placed}"
        return pointing(hostile.kind, "{bucket}", key, str(len(hostile.content)), hostile.content)
