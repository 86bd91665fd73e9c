"""The server listens where it may, on a thread of its own, and ends without cutting anyone off who can still finish."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import ValidationError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from signer import logs
from signer.api.protocol import HttpProtocol
from signer.api.server import ApiServer
from signer.errors import ConfigurationError
from signer.settings import HttpSettings
from tests.integration.http_support import Entrance, eventually, running


def refuses_connections(entrance: Entrance) -> bool:
    """Tell whether nobody listens any more."""
    try:
        entrance.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "203.0.113.7"])  # noqa: S104 - what must be refused
def test_settings_let_it_listen_on_loopback_only(host: str) -> None:
    """Callers are not authenticated yet."""
    with pytest.raises(ValidationError, match="loopback"):
        HttpSettings(host=host)


def test_it_listens_on_ipv6_loopback() -> None:
    """`::1` is loopback too."""
    with running(host="::1") as entrance:
        assert httpx.get(f"http://[::1]:{entrance.port}/livez").status_code == 200


def test_a_taken_port_is_told() -> None:
    """The error names host and port, and is one of configuration."""
    with running() as entrance:
        settings = HttpSettings(port=entrance.port)
        second = ApiServer(entrance.app, settings, logs.get("signer.http"), 1.0)
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1 port {entrance.port}: Address already in use"):
            second.start()
        second.close()
        assert entrance.sign().status_code == 200


def test_it_leaves_the_main_thread_and_its_signals_alone() -> None:
    """The main thread waits for signals; the server runs beside it and says which port it got."""
    with running() as entrance:
        assert entrance.port > 0
        assert any(thread.name == "http" for thread in threading.enumerate())
        (line,) = entrance.log_lines("http.listening")
        assert line["port"] == entrance.port
    assert not any(thread.name == "http" for thread in threading.enumerate())


def test_answers_are_not_delayed_by_nagle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body are two writes; the second must not wait until the client has acknowledged the first."""
    options: list[int] = []

    def note(protocol: HttpProtocol, transport: asyncio.Transport) -> None:
        options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        HttpToolsProtocol.connection_made(protocol, transport)

    monkeypatch.setattr(HttpProtocol, "connection_made", note)
    with running() as entrance:
        assert entrance.client.get("/livez").status_code == 200
    assert options == [1]


def test_closing_lets_a_request_in_flight_finish() -> None:
    """Nobody new is let in; who is in gets the signature; then `close` returns, and again at once."""
    with running() as entrance, ThreadPoolExecutor(2) as others:
        with entrance.key_ring.held() as held:
            inside = others.submit(entrance.sign)
            held.wait_for(1)
            closing = others.submit(entrance.server.close)
            eventually(lambda: refuses_connections(entrance))
            with pytest.raises(TimeoutError):
                closing.result(timeout=0.5)
        assert inside.result().status_code == 200
        assert inside.result().headers["Connection"] == "close"
        assert closing.result() is False
        assert entrance.server.close() is False
        assert [line["event"] for line in entrance.log_lines("http.closed")] == ["http.closed"]


def test_closing_does_not_wait_for_ever() -> None:
    """Who is not done in time is told that the service goes away and that the request may be sent again."""
    with running(drain_timeout_s=0) as entrance, ThreadPoolExecutor(1) as other:
        with entrance.key_ring.held() as held:
            inside = other.submit(entrance.sign)
            held.wait_for(1)
            assert entrance.server.close() is True
            response = inside.result()
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert entrance.server.close() is True
        assert [line["cut_off"] for line in entrance.log_lines("http.closed")] == [True]
        assert (response.json()["retryable"], response.headers["Retry-After"]) == (True, "1")
        (line,) = entrance.log_lines("request.refused")
        assert line["request_id"] == response.json()["request_id"]


def test_closing_tells_who_was_cut_off_after_the_drain_time() -> None:
    """Also where there was some time, and only who was still in flight at its end counts."""
    with running(drain_timeout_s=1) as entrance, ThreadPoolExecutor(2) as others:
        done = others.submit(entrance.sign)
        assert done.result().status_code == 200
        with entrance.key_ring.held() as held:
            inside = others.submit(entrance.sign, transaction_id="TXN-000002")
            held.wait_for(1)
            assert entrance.server.close() is True
            assert inside.result().status_code == 503


def test_closing_ends_idle_connections() -> None:
    """A client that keeps its connection for later does not hold the service up."""
    with running() as entrance, entrance.connect() as connection:
        connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.answer()[0] == 200
        assert entrance.server.close() is False
        assert connection.is_closed()


def test_answers_do_not_name_the_server() -> None:
    """Which program of which version answers is nobody's business."""
    with running() as entrance:
        assert "server" not in entrance.client.get("/livez").headers
