"""What every answer has in common: a request id, safe headers, a count, and a plain 500 for what nobody expected."""

import ipaddress
import re
import traceback
import uuid
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signer.api.errors import MisdirectedRequestError
from signer.api.problems import CLIENT_GONE_STATUS, UNKNOWN_PROBLEM, Problem
from signer.logs import Logger
from signer.metrics import Metrics

REQUEST_ID_HEADER: Final = "X-Request-Id"
_UNREAD: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<v4>[0-9.]+)|(?P<name>localhost))(?::[0-9]*)?", re.IGNORECASE)
_MISDIRECTED: Final = Problem.of(MisdirectedRequestError("the Host header must name a loopback address or localhost"))


def request_id_of(request: Request) -> str:
    """Give the id that `Frame` made for this request."""
    request_id: str = request.state.request_id
    return request_id


class Frame:
    """ASGI middleware around all routes.

    `Host` must name this machine, unless `any_host`: where callers prove who they are, a page that was pointed here
    cannot.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, logger: Logger, *, any_host: bool = False) -> None:
        self._app = app
        self._any_host = any_host
        self._metrics = metrics
        self._logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send, str(uuid.uuid4()))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        try:
            app = self._app if self._any_host or _is_ours(scope) else _MISDIRECTED.response(answer.request_id)
            await app(scope, receive, answer.send)
        except Exception as error:
            self._log(error, answer.request_id)
            if answer.status is not None:
                raise  # half an answer is out already: only cutting the connection says that it is worth nothing
            await UNKNOWN_PROBLEM.response(answer.request_id)(scope, receive, answer.send)
        finally:
            status = str(answer.status or CLIENT_GONE_STATUS)
            self._metrics.http_requests.labels(_route_template(scope), status).inc()

    def _log(self, error: Exception, request_id: str) -> None:
        # Where it happened, but not its text, which may quote what the client sent.
        where = traceback.format_tb(error.__traceback__)
        self._logger.error("request.failed", request_id=request_id, error=type(error).__qualname__, where=where)


class _Answer:
    """The way out for one answer: completes its headers and remembers its status."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._complete(MutableHeaders(scope=message), message["status"])
        await self._send(message)

    def _complete(self, headers: MutableHeaders, status: int) -> None:
        headers[REQUEST_ID_HEADER] = self.request_id
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        # The rest of a body that was refused half-way may be endless; the server would go on reading it.
        streaming = any(name == b"transfer-encoding" for name, _ in self._scope["headers"])
        if status in _UNREAD or (streaming and status >= HTTPStatus.BAD_REQUEST):
            headers["Connection"] = "close"


def _is_ours(scope: Scope) -> bool:
    """Tell whether the request names this machine as its host (RFC 9110, section 7.4), exactly once."""
    hosts = Headers(scope=scope).getlist("host")
    host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if host is None or host["name"]:
        return host is not None
    try:
        address = ipaddress.IPv6Address(host["v6"]) if host["v6"] else ipaddress.IPv4Address(host["v4"])
    except ValueError:
        return False
    return address.is_loopback


def _route_template(scope: MutableMapping[str, Any]) -> str:
    """Name the route, never the path: a client could make up as many paths as it likes."""
    return getattr(scope.get("route"), "path", "unmatched")
