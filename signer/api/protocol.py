"""uvicorn's HTTP/1.1 on one connection, with a bound on request heads, answers in our form, and no lost bodies."""

from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from signer.api.problems import PROBLEM_MEDIA_TYPE, Problem

MAX_HEAD_BYTES: Final = 65_536
_MALFORMED: Final = Problem(HTTPStatus.BAD_REQUEST, "malformed_request", "this is not an HTTP/1.1 request")
_HEAD_TOO_LARGE: Final = Problem(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", f"the headers exceed {MAX_HEAD_BYTES} bytes"
)


class HttpProtocol(HttpToolsProtocol):
    """Reads requests; what never becomes one is refused here, with a problem document as everywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._has_cycle = False

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which itself would collect headers without end."""
        self._unset_keepalive_if_required()
        rest = data
        while rest and not self.transport.is_closing():
            rest = self._feed(rest)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        """From here on it is a request, and the routes decide about its body."""
        self._in_head = False
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._has_cycle = True

    def on_message_complete(self) -> None:
        """End the request, unless the parser took its body for another protocol."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _feed(self, data: bytes) -> bytes:
        """Give what is still to be read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return self._without_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(_MALFORMED)
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

    def _refuse(self, problem: Problem) -> None:
        if not self._owes_an_answer():
            body = problem.body(None)
            head = f"content-type: {PROBLEM_MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[problem.status] + head.encode("ascii") + body)
        self.transport.close()

    def _owes_an_answer(self) -> bool:
        # A complete request before this one is still being signed: the client would take the refusal for its answer.
        if not self._has_cycle:
            return False
        return bool(self.pipeline) or not (self.cycle.more_body or self.cycle.response_complete)
