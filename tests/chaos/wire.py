"""HTTP/1.1 as far as AWS's clients speak it: a whole request or answer at a time."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

_END: Final = b"\r\n\r\n"
_MOST_HEAD_BYTES: Final = 1 << 16
_NOT_PASSED_ON: Final = frozenset({"connection", "expect", "keep-alive", "transfer-encoding", "content-length"})
_BY_METHOD: Final = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject"}


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Give a header; empty if there is none."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def operation(self) -> str:
        """What a request asks for, in AWS's words."""
        target = self.header("x-amz-target")
        return target.rpartition(".")[2] or _BY_METHOD.get(self.start.partition(" ")[0], "")

    @property
    def parameters(self) -> dict[str, Any]:
        """What a request of the JSON protocols asks it with."""
        found: dict[str, Any] = json.loads(self.body) if self.header("x-amz-target") and self.body else {}
        return found

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.start.split(" ")[1])

    def instead(self, operation: str, parameters: dict[str, Any]) -> "Message":
        """Give a request to the same service that asks for something else."""
        prefix = self.header("x-amz-target").rpartition(".")[0]
        others = [pair for pair in self.headers if pair[0].lower() != "x-amz-target"]
        return Message(
            self.start, (*others, ("X-Amz-Target", f"{prefix}.{operation}")), json.dumps(parameters).encode()
        )

    def encode(self) -> bytes:
        """Give the octets; the body's length is said anew, unless there is none where one was announced (HEAD)."""
        kept = [(name, value) for name, value in self.headers if name.lower() not in _NOT_PASSED_ON]
        length = len(self.body) or int(self.header("content-length") or 0)
        lines = [self.start, *(f"{name}: {value}" for name, value in kept), f"Content-Length: {length}"]
        return "\r\n".join(lines).encode("latin-1") + _END + self.body


def answer(status: int, document: dict[str, Any]) -> Message:
    """Make an answer such as the JSON protocols give."""
    headers = (("Content-Type", "application/x-amz-json-1.0"),)
    return Message(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", headers, json.dumps(document).encode())


def refusal(request: Message, status: int, code: str) -> Message:
    """Make the answer by which AWS refuses `request`: JSON, and XML for S3."""
    if request.header("x-amz-target"):
        return answer(status, {"__type": f"com.amazonaws#{code}", "message": "refused by the proxy"})
    body = f"<Error><Code>{code}</Code><Message>refused by the proxy</Message></Error>"
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return Message(start, (("Content-Type", "application/xml"),), body.encode())


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
    """Read a request from a client, and bid it go on where it asks whether it may; raises `IncompleteReadError`."""
    head = await _read_head(reader)
    if head.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue" + _END)
    return await _with_body(head, reader)


async def read_answer(reader: asyncio.StreamReader, request: Message) -> Message:
    """Read the answer to `request`; raises `IncompleteReadError`."""
    head = await _read_head(reader)
    bodiless = request.start.startswith("HEAD ") or head.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    return head if bodiless else await _with_body(head, reader)


async def _read_head(reader: asyncio.StreamReader) -> Message:
    start, *lines = (await reader.readuntil(_END)).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return Message(start, tuple(_pairs(lines)), b"")


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name, value.strip()


async def _with_body(head: Message, reader: asyncio.StreamReader) -> Message:
    if head.header("transfer-encoding").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(head.header("content-length") or 0))
    return Message(head.start, head.headers, body)
