"""What stands behind a body in chunks, or around them, is no header, and not much of it is taken."""

from urllib.parse import quote

import pytest

from signer.api import protocol
from tests.integration.http_support import CALLERS, RawConnection, running
from tests.integration.test_http_body import GET_LIVE, JSON, assert_refused, request_of
from tests.pki import Authority, uri

SPIFFE = "spiffe://bank.example/settlement"
CHUNKED = {"Transfer-Encoding": "chunked"}
GET_KEYS = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_MUCH = {
    "many trailers": b"0\r\n" + b"X-Trailer: y\r\n" * 10_000,
    "one long trailer": b"0\r\nX-Trailer: " + b"y" * 140_000,
    "a chunk extension": b"2;name=" + b"y" * 140_000,
}


def chunk_of(body: bytes) -> bytes:
    """The body in one chunk, and the last chunk, without the end of the trailers."""
    return b"%x\r\n%s\r\n0\r\n" % (len(body), body)


def ask(connection: RawConnection, headers: dict[str, str], trailers: bytes) -> tuple[int, str | None]:
    """Ask for a signature; gives status and code."""
    connection.post({**CHUNKED, **headers}, chunk_of(request_of(200)) + trailers + b"\r\n")
    status, _, document = connection.answer()
    return status, document.get("code")


def test_a_trailer_is_no_header() -> None:
    """It is read and dropped: it does not say what the body is, and the connection goes on."""
    trailer = b"Content-Type: application/json\r\n"
    with running() as entrance:
        with entrance.connect() as connection:
            assert ask(connection, {}, trailer) == (415, "unsupported_media_type")
        with entrance.connect() as connection:
            assert ask(connection, JSON, trailer) == (200, None)
            connection.send(GET_LIVE)
            assert connection.answer()[0] == 200


def test_a_trailer_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer that drops the certificate headers of its clients does not look behind the body."""
    monkeypatch.setitem(CALLERS, "settlement", frozenset({SPIFFE}))
    shown = quote(Authority("Anybody").issue("victim", [uri(SPIFFE)]).pem, safe="+/=")
    with running(proxy={"networks": ["127.0.0.1/32"]}) as entrance, entrance.connect() as connection:
        trailer = f"X-Amzn-Mtls-Clientcert-Leaf: {shown}\r\n".encode()
        assert ask(connection, JSON, trailer) == (401, "credentials_missing")
        assert entrance.key_ring.signed == []


@pytest.mark.parametrize("sent", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_what_brings_no_body_is_bounded(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for an answer is told; who has one already hears no second, and is hung up on."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 60.0)  # it is not this that ends them
    with running() as entrance:
        with entrance.connect() as connection:
            connection.post({**JSON, **CHUNKED}, b"2\r\n{}\r\n")
            connection.send(sent)
            assert_refused(connection, 431, "headers_too_large")
        with entrance.connect() as connection:
            connection.send(GET_KEYS)
            assert connection.answer()[0] == 200
            connection.send(sent)
            assert connection.is_closed()


def test_who_was_told_hears_no_second_answer() -> None:
    """Work that had begun before the trailers became too many goes on, and says nothing any more."""
    with running() as entrance, entrance.connect() as connection:
        with entrance.audit.held() as held:
            connection.send(GET_KEYS.replace(b"/.well-known/jwks.json", b"/v1/keys"))
            held.wait_for(1)
            connection.send(TOO_MUCH["many trailers"])
            assert connection.answer()[2]["code"] == "headers_too_large"
        assert connection.is_closed()


def test_a_body_in_small_chunks_is_no_trailer() -> None:
    """However much stands around its chunks, they bring body."""
    body = request_of(20_000)
    chunks = b"".join(b"1;some=extension\r\n%c\r\n" % octet for octet in body)
    with running() as entrance, entrance.connect() as connection:
        connection.post({**JSON, **CHUNKED}, chunks + b"0\r\n\r\n")
        assert connection.answer()[0] == 200
