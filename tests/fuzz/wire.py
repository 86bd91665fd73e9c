"""What arrives on a connection before it is a request: octets, for the protocol that reads HTTP/1.1 out of them."""

import asyncio
import functools
from typing import Any, Final

import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from signer.api.body import read_json_body
from signer.api.errors import ClientGoneError
from signer.api.problems import Problem
from signer.api.protocol import HttpProtocol
from signer.errors import SignerError

_SIGN: Final = b'{"key":"settlement","message":{}}'
_HEAD: Final = b"POST /v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_LENGTH: Final = b"Content-Length: %d\r\n" % len(_SIGN)
_CHUNKS: Final = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(_SIGN), _SIGN)
REQUESTS: Final = (
    b"GET /livez?a=%2f HTTP/1.1\r\nHost: localhost\r\n\r\n",
    _HEAD + _LENGTH + b"\r\n" + _SIGN,
    _HEAD + _CHUNKS,
    # Java's client offers this in every request.
    _HEAD + _LENGTH + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n\r\n" + _SIGN,
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
)


class _Line(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711), "sockname": ("127.0.0.1", 8080)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body as a signing request's, and say so, or end without an answer to a client that has gone."""
    try:
        await read_json_body(Request(scope, receive), limit_bytes=1024, timeout_s=5)
    except ClientGoneError:
        return
    except SignerError as error:
        await Problem.of(error).response("request-1")(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@functools.cache
def _config() -> uvicorn.Config:
    config = uvicorn.Config(_answer, http=HttpProtocol, log_config=None, lifespan="off", limit_concurrency=8)
    config.load()
    return config


def read(data: bytes) -> bytes:
    """Let it arrive in two pieces; gives what was answered, which is in HTTP and no defect."""
    return asyncio.run(_read(data))


async def _read(data: bytes) -> bytes:
    line = _Line()
    protocol: Any = HttpProtocol(_config(), ServerState(), {})
    protocol.connection_made(line)
    half = len(data) // 2
    for piece in (data[:half], data[half:]):
        if piece and not line.closed:
            protocol.data_received(piece)
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    assert not line.written or line.written.startswith(b"HTTP/1.1 "), line.written
    assert b" 500 " not in line.written.split(b"\r\n", 1)[0], line.written
    return line.written
