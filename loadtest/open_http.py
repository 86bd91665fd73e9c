"""The HTTP entrance for an open loop: one transaction a request, over as many connections as there are requests."""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp

from loadtest.messages import ALIAS, Book, request_body
from loadtest.tally import Tally
from loadtest.verifier import Verifier

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where to ask, and as whom."""

    url: str
    tls: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ALIAS
    connections: int = 512
    timeout_s: float = 30.0


class HttpDriver:
    """Asks for one signature at a time."""

    size = 1

    def __init__(self, target: HttpTarget, book: Book, verifier: Verifier, prefix: str) -> None:
        self._target, self._book, self._verifier, self._prefix = target, book, verifier, prefix
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._target.connections, ssl=self._target.tls or True)
        timeout = aiohttp.ClientTimeout(total=self._target.timeout_s)
        headers = {**self._target.headers, "Content-Type": "application/json"}
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, tally: Tally, intended_s: float) -> None:
        """Have one transaction signed, and note what came of it."""
        name, page = self._book.take(self._prefix)
        body = request_body(name, page, self._target.key)
        self._verifier.send(name, page.digest)
        tally.start(intended_s, time.perf_counter())
        try:
            answer = await self._ask(body)
        except (aiohttp.ClientError, TimeoutError, _RefusedError, asyncio.CancelledError) as error:
            tally.fail(str(error) if isinstance(error, _RefusedError) else type(error).__name__)
            self._verifier.give_up(name)
            return
        tally.finish(intended_s)
        self._verifier.receive(name, answer.get("transaction_id"), answer.get("signature"))

    async def _ask(self, body: bytes) -> dict[str, Any]:
        if self._session is None:
            raise asyncio.InvalidStateError
        async with self._session.post(f"{self._target.url}/v1/sign", data=body) as answer:
            text = await answer.read()
        if answer.status != _OK:
            raise _RefusedError(answer.status)
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        return said if isinstance(said, dict) else {}


class _RefusedError(Exception):
    """Answered, but not with a signature."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
