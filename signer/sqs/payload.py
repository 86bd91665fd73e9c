"""Large bodies in S3: fetched from where the settings allow, checked before use; stored once under their own hash."""

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, FlexibleChecksumError
from botocore.httpchecksum import StreamingChecksumBody

from signer import failpoints
from signer.deadlines import Deadline
from signer.errors import (
    PayloadAbsentError,
    PayloadMismatchError,
    PayloadNotAllowedError,
    PayloadTooLargeError,
)
from signer.settings import PayloadSettings, SqsSettings
from signer.sqs.calls import code_of, insist
from signer.sqs.client import Clients
from signer.sqs.errors import PayloadUnavailableError
from signer.sqs.pointers import Pointer

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES: Final = 1 << 20
# A lifecycle rule counts from when an object was written: an older one is written again when it is sent again.
_FRESH: Final = timedelta(days=1)


class PayloadStore:
    """The buckets; it deletes nothing, the buckets' lifecycle rules do."""

    def __init__(
        self,
        client: "S3Client",
        settings: PayloadSettings,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._settings = settings
        self._wall_clock = wall_clock
        self._owner: dict[str, Any] = (
            {} if settings.bucket_owner is None else {"ExpectedBucketOwner": settings.bucket_owner}
        )
        self._encryption: dict[str, Any] = (
            {} if settings.kms_key is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key}
        )

    def fetch(self, pointer: Pointer, deadline: Deadline) -> bytes:
        """Give the body that lies there, of exactly the size that was said.

        Raises `PayloadNotAllowedError`, `PayloadTooLargeError`, `PayloadMismatchError`, `PayloadAbsentError`, and
        `PayloadUnavailableError` and `DeadlineExceededError` where another try may help.
        """
        if not any(f"{pointer.bucket}/{pointer.key}".startswith(place) for place in self._settings.accept):
            msg = "the message points at a place that bodies are not fetched from (sqs.payloads.accept)"
            raise PayloadNotAllowedError(msg)
        if pointer.size_bytes > self._settings.max_bytes:
            msg = f"the body is larger than {self._settings.max_bytes} bytes (sqs.payloads.max_bytes)"
            raise PayloadTooLargeError(msg)
        return insist("GetObject", lambda: self._get(pointer, deadline), deadline.check, PayloadUnavailableError)

    def keep(self, body: bytes, content_sha256: str) -> Pointer:
        """Store a body under its hash, unless it lies there already; raises `PayloadUnavailableError`."""
        pointer = Pointer(self._settings.bucket, self._settings.prefix + content_sha256, len(body))
        digest = base64.b64encode(bytes.fromhex(content_sha256)).decode("ascii")
        failpoints.reach("storing", failpoints.cut_short(lambda: self._put(pointer, body, digest, {})))
        try:
            self._put(pointer, body, digest, {"IfNoneMatch": "*"})
        except _LiesThereError:
            if not self._is_whole_and_fresh(pointer, digest):
                self._put(pointer, body, digest, {})
        failpoints.reach("stored")
        return pointer

    def _get(self, pointer: Pointer, deadline: Deadline) -> bytes:
        try:
            answer = self._client.get_object(
                Bucket=pointer.bucket, Key=pointer.key, ChecksumMode="ENABLED", **self._owner
            )
        except ClientError as error:
            if code_of(error) == "NoSuchKey":
                msg = "nothing lies where the message points"
                raise PayloadAbsentError(msg) from None
            raise
        with closing(answer["Body"]) as stream:
            # Before a byte is read: so memory is bounded by what was said, and that by the settings.
            if answer["ContentLength"] != pointer.size_bytes:
                msg = "what lies where the message points has another size than the message says"
                raise PayloadMismatchError(msg)
            # Botocore compares what it can, and passes over the rest in silence.
            if not isinstance(stream, StreamingChecksumBody):
                msg = "what lies where the message points has no checksum of the whole: it must be stored in one piece"
                raise PayloadMismatchError(msg)
            try:
                return b"".join(_chunks(stream, deadline))
            except FlexibleChecksumError:
                msg = "what lies where the message points is not what was stored there: its checksum differs"
                raise PayloadMismatchError(msg) from None

    def _put(self, pointer: Pointer, body: bytes, digest: str, condition: Mapping[str, Any]) -> None:
        def put() -> None:
            try:
                self._client.put_object(
                    Bucket=pointer.bucket,
                    Key=pointer.key,
                    Body=body,
                    ContentType="application/json",
                    # S3 compares it with what arrives.
                    ChecksumSHA256=digest,
                    **self._encryption,
                    **self._owner,
                    **condition,
                )
            except ClientError as error:
                if code_of(error) == "PreconditionFailed":
                    raise _LiesThereError from None
                raise

        insist("PutObject", put, error_type=PayloadUnavailableError)

    def _is_whole_and_fresh(self, pointer: Pointer, digest: str) -> bool:
        found = insist(
            "HeadObject",
            lambda: self._client.head_object(
                Bucket=pointer.bucket, Key=pointer.key, ChecksumMode="ENABLED", **self._owner
            ),
            error_type=PayloadUnavailableError,
        )
        fresh = found["LastModified"] > self._wall_clock() - _FRESH
        return fresh and found.get("ChecksumSHA256") == digest


def store_for(clients: Clients, settings: SqsSettings) -> PayloadStore | None:
    """Give the store that the settings name, if they do."""
    if clients.objects is None or settings.payloads is None:
        return None
    return PayloadStore(clients.objects, settings.payloads)


class _LiesThereError(Exception):
    """There is an object under this key."""


def _chunks(stream: "StreamingBody", deadline: Deadline) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk
        # S3 may be slow without ever falling silent.
        deadline.check()
