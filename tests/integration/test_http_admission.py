"""Admission is bounded; who has to wait is watched; and nothing of it keeps the probes waiting."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from signer.api import groups
from tests.integration.http_support import Entrance, eventually, running, signing_request


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    """Threads to send requests from while the test goes on."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


def ask(entrance: Entrance, number: int) -> httpx.Response:
    """Ask for the signature of a transaction of its own."""
    return entrance.sign(transaction_id=f"TXN-{number}")


def test_beyond_the_bound_requests_are_refused_at_once(clients: ThreadPoolExecutor) -> None:
    """The next gets a 503 before its body is asked for; the probes answer; those that were in are all served."""
    with running(max_in_flight=2) as entrance, entrance.key_ring.held() as held:
        inside = []
        for number in range(2):
            inside.append(clients.submit(ask, entrance, number))
            # One by one: what arrives at once is one call of the core.
            held.wait_for(number + 1)
        with entrance.connect() as connection:
            headers = {"Content-Type": "application/json", "Content-Length": "100", "Expect": "100-continue"}
            connection.post(headers)
            status, answered, problem = connection.answer()
        assert (status, problem["code"], problem["retryable"]) == (503, "overloaded", True)
        assert answered["retry-after"] == "1"
        assert [entrance.client.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        assert entrance.sample("signer_http_in_flight") == 2.0
        held.let_go()
        assert [request.result().status_code for request in inside] == [200, 200]
        assert ask(entrance, 3).status_code == 200


def test_a_refused_request_leaves_its_place_free() -> None:
    """Places are given back however a request ends."""
    with running(max_in_flight=1) as entrance:
        for changes in ({"key": "unheard-of"}, {"message": None}, {}, {"message": {"amount": "2"}}) * 3:
            assert entrance.sign(**changes).json().get("code") != "overloaded"


def test_who_hangs_up_while_waiting_is_not_signed_for(
    clients: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its turn comes nobody would hear the answer, so the HSM is spared."""
    monkeypatch.setattr(groups, "_MOST_GROUPS", 1)
    body = json.dumps(signing_request(transaction_id="TXN-gone")).encode()
    with running(max_in_flight=2) as entrance, entrance.key_ring.held() as held:
        first = clients.submit(ask, entrance, 1)
        held.wait_for(1)
        with entrance.connect() as connection:
            connection.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
            eventually(lambda: entrance.sample("signer_http_in_flight") == 2.0)
        entrance.client.get("/livez")  # its answer comes after the event loop has seen the other connection end
        held.let_go()
        assert first.result().status_code == 200
        eventually(lambda: entrance.sample("signer_http_in_flight") == 0.0)
        assert len(entrance.key_ring.signed) == 1
        assert [line["code"] for line in entrance.log_lines("request.refused")] == ["client_gone"]
        assert ("settlement", "TXN-gone") not in entrance.ledger.bound


def test_who_waits_longer_than_allowed_is_not_signed_for(
    clients: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that hangs in the HSM does not make the others wait beyond their deadline."""
    monkeypatch.setattr(groups, "_MOST_GROUPS", 1)
    with running(max_in_flight=2, signing_timeout_s=2.0) as entrance, entrance.key_ring.held() as held:
        first = clients.submit(ask, entrance, 1)
        held.wait_for(1)
        late = ask(entrance, 2)
        assert not first.done()
        held.let_go()
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert first.result().json()["code"] == "deadline_exceeded"
        assert entrance.key_ring.signed == []


def test_the_wait_for_a_thread_is_told_as_admission(clients: ThreadPoolExecutor) -> None:
    """Every request that reached a thread is counted in the stages, one that was refused before is not."""
    with running(max_in_flight=1) as entrance:
        with entrance.key_ring.held() as held:
            inside = clients.submit(ask, entrance, 1)
            held.wait_for(1)
            assert ask(entrance, 2).status_code == 503
        assert inside.result().status_code == 200
        counts = {
            stage: entrance.sample("signer_stage_seconds_count", entrance="http", stage=stage)
            for stage in ("admission", "pool_wait", "hsm_sign", "verify", "audit", "total")
        }
    assert set(counts.values()) == {1.0}, counts
