"""uvicorn's HTTP/1.1 on one connection: few of them, bounded request heads, answers in our form, no lost bodies."""

import asyncio
import ssl
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from signer.api.errors import (
    HeadersTooLargeError,
    HeadTimeoutError,
    MalformedRequestError,
    TooManyConnectionsError,
)
from signer.api.problems import PROBLEM_MEDIA_TYPE, Problem

_IS_GONE: Final = "client_is_gone"
_CYCLE: Final = "cycle"
_REQUIRE_ACCEPTED: Final = "require_accepted"
MAX_HEAD_BYTES: Final = 65_536
HEAD_TIMEOUT_S: Final = 10.0
"""From the connection, or the first octet after an answer, up to a complete head; uvicorn ends idle ones sooner."""
_LINGER_S: Final = 1.0
_MALFORMED: Final = Problem.of(MalformedRequestError("this is not an HTTP/1.1 request"))
_HEAD_TOO_LARGE: Final = Problem.of(HeadersTooLargeError(f"the headers exceed {MAX_HEAD_BYTES} bytes"))
_HEAD_TIMEOUT: Final = Problem.of(HeadTimeoutError("the headers did not arrive in time"))
_TOO_MANY: Final = Problem.of(TooManyConnectionsError("too many connections are open"))


def client_is_gone(scope: Scope) -> Callable[[], bool]:
    """Give what tells whether the connection of a request has come to its end; what ASGI offers is slow to ask."""
    is_gone: Callable[[], bool] = scope["state"][_IS_GONE]
    return is_gone


def accepted_still(scope: Scope) -> Callable[[], None]:
    """Give what raises an error once the client of a request was accepted by TLS files that are no longer in force."""
    require_accepted: Callable[[], None] = scope["state"][_REQUIRE_ACCEPTED]
    return require_accepted


def body_is_whole(scope: Scope) -> bool:
    """Tell whether the whole body of a request has been received, as that of most has when its head is looked at."""
    cycle: RequestResponseCycle | None = scope["state"][_CYCLE]()
    return cycle is not None and not cycle.more_body


class HttpProtocol(HttpToolsProtocol):
    """Reads requests; what never becomes one is refused here, with a problem document as everywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn would count by it too, but answer in its own form, and only whoever sends a request.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._head_bytes = 0
        """Of a head, or of what brings no body behind one: trailers, and what stands around chunks."""
        self._in_head = True
        self._has_come_further = False
        self._is_lingering = False
        self._has_cycle = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._client_chain: list[str] = []
        self.judge: Callable[[str], None] | None = None
        """Raises an error if the client with this certificate (PEM) is no longer accepted."""
        self._require_accepted: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in, unless there are too many."""
        super().connection_made(transport)
        self._client_chain = _client_chain(transport)
        if self.judge is not None and self._client_chain:
            self._require_accepted = partial(self.judge, self._client_chain[0])
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._refuse(_TOO_MANY)
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nothing wait for it any more."""
        self._expect_no_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which itself would collect headers without end."""
        self._unset_keepalive_if_required()
        rest = data
        while rest and not self._is_ending():
            # No more than a head may still have: in however many pieces it comes, it is refused at the same octet.
            room = MAX_HEAD_BYTES - self._head_bytes
            rest = self._feed(rest[:room]) + rest[room:]
        if not self._is_ending() and (self._in_head or (self._has_cycle and self.cycle.response_complete)):
            self._expect_head()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self.scope["state"] |= {_IS_GONE: self.transport.is_closing, _REQUIRE_ACCEPTED: self._require_accepted}
        self._head_bytes, self._in_head = 0, True
        if self.scheme == "https":
            # ASGI TLS extension, version 0.2: leaf first, PEM.
            self.scope["extensions"] = {"tls": {"client_cert_chain": self._client_chain}}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is none, or it would be believed like one (RFC 9110, section 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """From here on it is a request, and the routes decide about its body."""
        self._come_further()
        self._in_head = False
        self._expect_no_head()
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._has_cycle = True
            # The cycle holds the scope: each would keep the other until the collector comes.
            self.scope["state"][_CYCLE] = weakref.ref(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Pass it on."""
        self._come_further()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless the parser took its body for another protocol."""
        self._come_further()
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _come_further(self) -> None:
        self._head_bytes, self._has_come_further = 0, True

    def _expect_head(self) -> None:
        """Start the clock; it then runs on whatever arrives, or a client could send an octet now and then for ever."""
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _expect_no_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._has_cycle and not self.cycle.response_complete:
            self._expect_head()  # what came before is still being signed, and its answer goes first
        elif self._in_head and self._head_bytes:
            self._refuse(_HEAD_TIMEOUT)
        else:
            self.transport.close()

    def _feed(self, data: bytes) -> bytes:
        """Give what is still to be read."""
        self._has_come_further = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._without_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(_MALFORMED)
        else:
            # Else what is left of it is of a body, of trailers or of the next head, and has just begun.
            if not self._has_come_further:
                self._head_bytes += len(data)
            if self._head_bytes >= MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE, linger_s=_LINGER_S)
        return b""

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Read the request again as if no other protocol had been offered (RFC 9110, section 7.8).

        Java's HTTP client offers h2c in every request; the parser then leaves the body unread (uvicorn issue 2722).
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode("ascii")
        if method == b"CONNECT":
            self._refuse(_MALFORMED)
            return b""
        self.parser = httptools.HttpRequestParser(self)
        kept = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([method + b" " + self.url + b" HTTP/" + version, *kept, b"", rest])

    def _is_ending(self) -> bool:
        return self._is_lingering or self.transport.is_closing()

    def _refuse(self, problem: Problem, *, linger_s: float = 0.0) -> None:
        """Answer and hang up; not at once, where the client is still sending: a reset would destroy the answer."""
        if not self._has_answered() and not self._owes_an_answer():
            body = problem.body(None)
            headers = {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
            lines = [f"{name}: {value}\r\n" for name, value in (headers | problem.headers()).items()]
            self.transport.write(STATUS_LINE[problem.status] + "".join([*lines, "\r\n"]).encode("ascii") + body)
        if linger_s:
            self._is_lingering = True
            self._expect_no_head()
            self._drop_request()
            self.loop.call_later(linger_s, self.transport.close)
        else:
            self.transport.close()

    def _drop_request(self) -> None:
        # Whoever works on a request that is still being read has no answer to give any more.
        if self._has_cycle and not self._in_head and self.cycle.more_body:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _has_answered(self) -> bool:
        # Some requests are answered before they have been read: a second answer would be taken for that to the next.
        return self._has_cycle and not self._in_head and self.cycle.response_started

    def _owes_an_answer(self) -> bool:
        # A complete request before this one is still being signed: the client would take the refusal for its answer.
        if not self._has_cycle:
            return False
        return bool(self.pipeline) or not (self.cycle.more_body or self.cycle.response_complete)


def _nothing() -> None:
    return


def _client_chain(transport: asyncio.Transport) -> list[str]:
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return [ssl.DER_cert_to_PEM_cert(certificate)] if certificate is not None else []
