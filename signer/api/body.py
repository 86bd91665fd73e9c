"""Reads a request's body no further than it may go: bounded in size and in time, whatever its headers claim."""

import asyncio
from typing import Final, NoReturn

from starlette.requests import ClientDisconnect, Request

from signer.api.errors import BodyTimeoutError, ClientGoneError, UnsupportedMediaTypeError
from signer.errors import BodyTooLargeError

MEDIA_TYPE: Final = "application/json"


async def read_json_body(request: Request, limit_bytes: int, timeout_s: float) -> bytes:
    """Give the body; raises `UnsupportedMediaTypeError`, `BodyTooLargeError`, `BodyTimeoutError`, `ClientGoneError`."""
    _require_json(request)
    if int(request.headers.get("content-length", "0")) > limit_bytes:
        _refuse_size(limit_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, limit_bytes)
    except TimeoutError:
        msg = "the body did not arrive in time"
        raise BodyTimeoutError(msg) from None
    except ClientDisconnect:
        msg = "the client hung up before its body was complete"
        raise ClientGoneError(msg) from None


def _require_json(request: Request) -> None:
    media_type, _, _ = request.headers.get("content-type", "").partition(";")
    if media_type.strip().lower() != MEDIA_TYPE:
        msg = f"the body must be declared as {MEDIA_TYPE}"
        raise UnsupportedMediaTypeError(msg)
    if any(coding.strip().lower() != "identity" for coding in request.headers.getlist("content-encoding")):
        msg = "the body must come without a content coding"
        raise UnsupportedMediaTypeError(msg)


async def _read(request: Request, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            _refuse_size(limit_bytes)
    return bytes(body)


def _refuse_size(limit_bytes: int) -> NoReturn:
    msg = f"the body is larger than {limit_bytes} bytes"
    raise BodyTooLargeError(msg)
