"""Connections are few and short-lived: whoever opens many, or says nothing on them, takes nothing from signing."""

import gc
import resource
import threading
from contextlib import ExitStack

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from signer.api import protocol
from signer.api.protocol import HttpProtocol
from signer.api.server import SPARE_DESCRIPTORS
from signer.errors import ConfigurationError
from tests.integration.http_support import eventually, running

GET_LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_connection_too_many_is_refused() -> None:
    """It is told so and closed at once; the others stay, and as soon as one of them goes there is room again."""
    with running(max_connections=2) as entrance, entrance.connect() as first:
        second = entrance.connect()
        for connection in (first, second):
            connection.send(GET_LIVE)
            assert connection.answer()[0] == 200
        with entrance.connect() as third:
            status, headers, problem = third.answer()
            assert (status, problem["code"], problem["retryable"]) == (503, "too_many_connections", True)
            assert (headers["retry-after"], headers["connection"]) == ("1", "close")
            assert third.is_closed()
        second.__exit__()
        eventually(lambda: entrance.client.get("/livez").status_code == 200)
        first.send(GET_LIVE)
        assert first.answer()[0] == 200


def test_a_burst_of_connections_is_let_in_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the event loop was busy hundreds have queued: they are not all accepted before the first is refused."""
    cap, burst, held, seen = 4, 400, threading.Event(), set[int]()
    original = HttpProtocol.connection_made

    def note(self: HttpProtocol, transport: object) -> None:
        held.wait()
        original(self, transport)  # type: ignore[arg-type]
        seen.add(len(self.connections))

    monkeypatch.setattr(HttpProtocol, "connection_made", note)
    with running(max_connections=cap) as entrance, ExitStack() as clients:
        try:
            connections = [clients.enter_context(entrance.connect()) for _ in range(burst)]
        finally:
            held.set()
        refused = connections[-1]
        assert refused.answer()[0] == 503
        assert refused.is_closed()
    assert cap < max(seen) < cap + SPARE_DESCRIPTORS // 2


@pytest.mark.parametrize("soft_limit", [256, 639])
def test_more_connections_than_descriptors_are_refused_at_start(
    soft_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ledger, queue and HSM need descriptors too; the error says what to change."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft_limit, 1_048_576))
    with pytest.raises(ConfigurationError, match=rf"max_connections.* {soft_limit} open files"), running():
        pytest.fail("it must not start")


@pytest.mark.parametrize("soft_limit", [640, resource.RLIM_INFINITY])
def test_enough_descriptors_are_enough(soft_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual cap and what else needs descriptors fit; no limit at all is fine."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft_limit, 1_048_576))
    with running() as entrance:
        assert entrance.sign().status_code == 200


@pytest.mark.parametrize("silence", [b"", GET_LIVE + b"\r\n"])
def test_who_asks_nothing_is_hung_up_on(silence: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new connection without a request, and one with empty lines behind an answer, end without another word."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with running() as entrance, entrance.connect() as connection:
        connection.send(silence)
        if silence:
            assert connection.answer()[0] == 200
            connection.send(b"\r\n")  # the keep-alive time-out ends with it
        assert connection.is_closed()


@pytest.mark.parametrize("before", [b"", GET_LIVE])
def test_a_head_that_trickles_in_is_not_waited_for(before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole head: another octet now and then does not prolong it; each request has its own."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.3)
    with running() as entrance, entrance.connect() as connection:
        connection.send(before)
        if before:
            assert connection.answer()[0] == 200
        connection.send(b"GET /livez HTTP/1.1\r\nX: ")
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.05):
                try:
                    connection.send(b"x")
                except OSError:
                    return

        other = threading.Thread(target=trickle)
        other.start()
        try:
            status, headers, problem = connection.answer()
        finally:
            stop.set()
            other.join()
        assert (status, problem["code"], headers["connection"]) == (408, "head_timeout", "close")
        assert connection.is_closed()


def test_a_head_behind_a_request_in_flight_does_not_cost_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second head may stay too long while the first request is signed: the first is answered all the same."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.1)
    body = b'{"key":"settlement","transaction_id":"T-1","message":{}}'
    with running() as entrance, entrance.connect() as connection:
        with entrance.key_ring.held() as held:
            connection.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
            held.wait_for(1)
            connection.send(b"GET /li")
            threading.Event().wait(0.4)
        assert connection.answer()[0] == 200
        assert connection.answer()[2]["code"] == "head_timeout"
        assert connection.is_closed()


def test_signing_longer_than_a_head_may_take_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out ends with the head; bodies, signing and idle connections have their own."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.1)
    body = b'{"key":"settlement","transaction_id":"T-1","message":{}}'
    with running() as entrance, entrance.connect() as connection:
        connection.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body[:9])
        threading.Event().wait(0.3)
        connection.send(body[9:])
        assert connection.answer()[0] == 200
        threading.Event().wait(0.3)
        connection.send(GET_LIVE)
        assert connection.answer()[0] == 200


def test_what_was_known_of_a_request_goes_with_it() -> None:
    """Nothing of it is left for the collector of cycles, which would halt every thread for them."""
    with running() as entrance:
        assert entrance.sign().status_code == 200
        gc.collect()
        gc.disable()
        try:
            assert {entrance.sign(transaction_id=f"T-{number}").status_code for number in range(20)} == {200}
            left = sum(isinstance(known, RequestResponseCycle) for known in gc.get_objects())
        finally:
            gc.enable()
    assert left <= 2  # the connection holds its last request
