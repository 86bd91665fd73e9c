"""Only requests that name this machine as their host are served: a browser sends others on behalf of web pages."""

import pytest

from tests.integration.http_support import eventually, running, signing_request

OTHERS = [
    "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "128.0.0.1",
    "[2001:db8::1]", "localhost:80:80", "localhost:x", "user@localhost", "::1", "[127.0.0.1]", "[localhost]", "127.1",
    "[::1", "localhost.", "127.0.0.1, evil.example", "127.0.0.256",
]  # fmt: skip


@pytest.mark.parametrize("port", ["", ":80", ":65535"])
@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.8.9.10", "[::1]"])
def test_loopback_names_are_served(host: str, port: str) -> None:
    """With any port: a forwarded one is not ours."""
    with running() as entrance:
        assert entrance.client.get("/livez", headers={"Host": host + port}).status_code == 200


@pytest.mark.parametrize("host", OTHERS)
def test_a_name_that_somebody_else_gave_us_is_not_served(host: str) -> None:
    """A web page whose name its owner points at 127.0.0.1 (DNS rebinding) may neither sign nor read."""
    with running() as entrance:
        for method, path in (("POST", "/v1/sign"), ("GET", "/v1/keys"), ("GET", "/livez"), ("GET", "/nowhere")):
            response = entrance.client.request(method, path, json=signing_request(), headers={"Host": host})
            assert (response.status_code, response.json()["code"]) == (421, "misdirected_request")
            assert response.json()["request_id"] == response.headers["X-Request-Id"]
        assert entrance.key_ring.signed == []
        eventually(lambda: entrance.sample("signer_http_requests_total", route="unmatched", status="421") == 4)


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: localhost\r\n" * 2])
def test_exactly_one_host_is_named(hosts: bytes) -> None:
    """None, or one to choose from, is no name of ours (RFC 9112, section 3.2)."""
    with running() as entrance, entrance.connect() as connection:
        connection.send(b"GET /v1/keys HTTP/1.1\r\n" + hosts + b"\r\n")
        status, _, problem = connection.answer()
        assert (status, problem["code"]) == (421, "misdirected_request")
