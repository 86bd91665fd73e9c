"""One hostile message: what is sent, and what it is meant to break."""

import json
from dataclasses import dataclass
from typing import Final

POINTER: Final = "software.amazon.payloadoffloading.PayloadS3Pointer"
_MOST_INLINE_BYTES: Final = 900_000


@dataclass(frozen=True, slots=True)
class Hostile:
    """A body, or a pointer to one; `{bucket}` in a pointer stands for the bucket that bodies are fetched from."""

    kind: str
    content: bytes
    size_text: str | None = None
    """What `ExtendedPayloadSize` says; None: the message is no pointer by itself."""
    stored: tuple[str, bytes] | None = None
    """The key and the content of the object that is put in S3 first."""

    @property
    def fits_a_queue(self) -> bool:
        """Whether SQS takes the content as the body of a message; what it does not take is sent by way of S3."""
        try:
            text = self.content.decode()
        except UnicodeDecodeError:
            return False
        return 0 < len(self.content) <= _MOST_INLINE_BYTES and all(map(_is_allowed, set(text)))


def pointing(kind: str, bucket: str, key: str, size_text: str, stored: bytes | None = None) -> Hostile:
    """Give a message that points at a place in S3."""
    body = json.dumps([POINTER, {"s3BucketName": bucket, "s3Key": key}]).encode()
    return Hostile(kind, body, size_text, None if stored is None else (key, stored))


def _is_allowed(character: str) -> bool:
    # The SQS developer guide: #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.
    return (character >= " " and character not in "\ufffe\uffff") or character in "\t\n\r"
