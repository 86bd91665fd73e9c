"""A request's head and body are bounded, whatever their headers claim and however they arrive."""

import json
import time

import pytest

from tests.integration.http_support import RawConnection, eventually, running, signing_request

LIMIT = 2048
GET_LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
JSON = {"Content-Type": "application/json"}


def request_of(size_bytes: int) -> bytes:
    """A request body of exactly this size."""
    empty = json.dumps(signing_request(message={"text": ""})).encode()
    return json.dumps(signing_request(message={"text": "x" * (size_bytes - len(empty))})).encode()


def chunked(body: bytes, chunk_bytes: int) -> bytes:
    """The body in chunks (RFC 9112, section 7.1)."""
    parts = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def assert_refused(connection: RawConnection, status: int, code: str) -> None:
    """The answer is this problem, and the connection ends with it."""
    answered, headers, problem = connection.answer()
    assert (answered, problem["code"]) == (status, code)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert connection.is_closed()


def test_a_body_of_exactly_the_limit_is_signed() -> None:
    """The limit is the largest body that is taken, in one piece and in chunks."""
    with running(max_body_bytes=LIMIT) as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Content-Length": str(LIMIT)}, request_of(LIMIT))
        assert connection.answer()[0] == 200
        connection.post({**JSON, "Transfer-Encoding": "chunked"}, chunked(request_of(LIMIT), 100))
        assert connection.answer()[0] == 200


def test_a_declared_size_beyond_the_limit_is_refused_before_the_body_comes() -> None:
    """A client that waits for leave to send is told no, instead of being asked for a body nobody wants."""
    with running(max_body_bytes=LIMIT) as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Content-Length": str(LIMIT + 1), "Expect": "100-continue"})
        assert_refused(connection, 413, "body_too_large")


def test_a_chunked_body_is_read_to_the_limit_only() -> None:
    """The answer comes while the body is still without an end."""
    with running(max_body_bytes=LIMIT) as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (LIMIT + 1, b" " * (LIMIT + 1)))
        assert_refused(connection, 413, "body_too_large")


def test_an_endless_body_for_another_route_is_not_read_on() -> None:
    """Who is refused while streaming is cut off, on every route."""
    with running() as entrance, entrance.connect() as connection:
        connection.post({"Transfer-Encoding": "chunked"}, b"1\r\nx\r\n", path="/livez")
        assert_refused(connection, 405, "method_not_allowed")


def test_a_body_longer_than_declared_is_not_read_as_a_body() -> None:
    """The declared part is the request; what follows is not HTTP, and ends the connection."""
    body = json.dumps(signing_request()).encode()
    with running() as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Content-Length": str(len(body))}, body)
        assert connection.answer()[0] == 200
        connection.send(b"\x00 and more of it")
        assert_refused(connection, 400, "malformed_request")


def test_a_body_shorter_than_declared_is_waited_for_in_bounds() -> None:
    """A client that stops half-way gets a 408 and frees its place."""
    with running(signing_timeout_s=0.1) as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Content-Length": "100"}, b'{"key"')
        assert_refused(connection, 408, "body_timeout")
        assert entrance.sample("signer_http_unfinished_bodies") == 0.0


def test_a_client_that_hangs_up_in_the_middle_of_its_body_frees_its_place() -> None:
    """Nothing is signed, and the log says why."""
    with running() as entrance:
        with entrance.connect() as connection:
            connection.post({**JSON, "Content-Length": "100"}, b'{"key"')
            eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 1.0)
            assert entrance.sample("signer_http_in_flight") == 0.0
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 0.0)
        (line,) = entrance.log_lines("request.refused")
        assert (line["code"], line["status"]) == ("client_gone", 499)
        assert entrance.key_ring.signed == []


@pytest.mark.parametrize("encodings", [["gzip"], ["identity", "br"], ["identity, deflate"], [""]])
def test_a_body_in_a_content_coding_is_refused(encodings: list[str]) -> None:
    """What it says is not what arrives, and to unpack it could fill the memory."""
    headers = [("Content-Type", "application/json"), *(("Content-Encoding", encoding) for encoding in encodings)]
    with running() as entrance:
        response = entrance.client.post("/v1/sign", content=request_of(LIMIT), headers=headers)
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
        assert entrance.key_ring.signed == []
        plain = {**JSON, "Content-Encoding": "Identity"}
        assert entrance.client.post("/v1/sign", content=request_of(LIMIT), headers=plain).status_code == 200


def test_two_lengths_at_once_are_refused() -> None:
    """Content-Length beside Transfer-Encoding is how requests are smuggled (RFC 9112, section 6.3)."""
    with running() as entrance, entrance.connect() as connection:
        connection.post({**JSON, "Content-Length": "3", "Transfer-Encoding": "chunked"}, b"0\r\n\r\n")
        assert_refused(connection, 400, "malformed_request")


@pytest.mark.parametrize("line", [b"X-Long: ", b"GET /"])
def test_a_head_without_an_end_is_refused(line: bytes) -> None:
    """Neither a header nor a path may fill the memory."""
    with running() as entrance, entrance.connect() as connection:
        start = b"" if line.startswith(b"GET") else b"GET /livez HTTP/1.1\r\n"
        connection.send(start + line + b"x" * 70_000)
        assert_refused(connection, 431, "headers_too_large")


@pytest.mark.parametrize("first", [None, 1, 30_000, 65_535, 65_536], ids=str)
@pytest.mark.parametrize(("size_bytes", "expected"), [(65_536, 200), (65_537, 431), (70_000, 431), (4_000_000, 431)])
def test_a_head_is_measured_in_however_many_pieces_it_comes(first: int | None, size_bytes: int, expected: int) -> None:
    """In one or in two, and also where much more is on its way: then the answer is not lost by a reset."""
    start, end = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"\r\n\r\n"
    head = start + b"x" * (size_bytes - len(start) - len(end)) + end
    with running() as entrance, entrance.connect() as connection:
        connection.send(GET_LIVE)
        assert connection.answer()[0] == 200
        if first is not None:
            connection.send(head[:first])
            time.sleep(0.05)  # so that the rest comes apart from it
        connection.send(head[first:])
        status, headers, problem = connection.answer()
        assert status == expected
        if expected == 431:
            assert (problem["code"], headers["connection"]) == ("headers_too_large", "close")
            assert connection.is_closed()


def test_a_body_before_it_does_not_count_to_a_head() -> None:
    """A large body and the next head may come in one piece."""
    body, padding = request_of(60_000), "x" * 20_000
    with running() as entrance, entrance.connect() as connection:
        head = f"POST /v1/sign HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {len(body)}\r\nContent-Type: application/json"
        connection.send(head.encode() + b"\r\n\r\n" + body + GET_LIVE[:-2] + f"X-Long: {padding}".encode())
        assert connection.answer()[0] == 200
        connection.send(b"\r\n\r\n")
        assert connection.answer()[0] == 200


def test_pipelined_requests_are_answered_in_their_order() -> None:
    """Each request on a connection gets its own answer, a refused one as well."""
    bodies = [json.dumps(signing_request(transaction_id=name)).encode() for name in ("T-1", "bad id", "T-3")]
    with running() as entrance, entrance.connect() as connection:
        head = "POST /v1/sign HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.send(b"".join((head % len(body)).encode() + body for body in bodies))
        answers = [connection.answer() for _ in bodies]
    assert [status for status, _, _ in answers] == [200, 400, 200]
    assert [body.get("transaction_id") for _, _, body in answers] == ["T-1", None, "T-3"]


def test_garbage_behind_a_request_is_not_its_answer() -> None:
    """While a request is being signed, its client must not take a refusal of what follows for the answer to it."""
    body = json.dumps(signing_request()).encode()
    with running() as entrance, entrance.connect() as connection, entrance.key_ring.held() as held:
        connection.post({**JSON, "Content-Length": str(len(body))}, body)
        held.wait_for(1)
        connection.send(b"\x00\r\n\r\n")
        assert connection.is_closed()


@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding"])
def test_an_offer_to_upgrade_is_ignored(framing: str) -> None:
    """Java's HTTP client offers h2c in every request; its bodies are read all the same, one after the other."""
    body = json.dumps(signing_request()).encode()
    length = str(len(body)) if framing == "Content-Length" else "chunked"
    offer = {**JSON, framing: length, "Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AA"}
    sent = body if framing == "Content-Length" else chunked(body, 10)
    with running() as entrance, entrance.connect() as connection:
        connection.post(offer, sent)
        assert connection.answer()[0] == 200
        connection.post({**offer, "Expect": "100-continue"})
        assert connection.go_ahead()
        connection.send(sent)
        assert connection.answer()[1]["idempotency-replayed"] == "true"
        connection.send(b"GET /livez HTTP/1.1\r\nHost: [::1]\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" * 2000)
        assert [connection.answer()[0] for _ in range(2000)] == [200] * 2000


def test_the_service_is_no_tunnel() -> None:
    """CONNECT is refused."""
    with running() as entrance, entrance.connect() as connection:
        connection.send(b"CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        assert_refused(connection, 400, "malformed_request")
