"""TLS files change while a request is open: whom the new ones revoke is refused, and nobody else needlessly."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.http_support import (
    CALLERS,
    PATIENCE_S,
    Entrance,
    RawConnection,
    eventually,
    running,
    signing_request,
)
from tests.integration.tls_support import SPIFFE, Files, client, is_let_in, refusals, sign
from tests.pki import Authority, Holder, server_certificate, uri

Answer = tuple[int, Mapping[str, str], Any]


@pytest.fixture(autouse=True)
def settlement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder of these certificates may use the key."""
    monkeypatch.setitem(CALLERS, "settlement", frozenset({SPIFFE}))


@pytest.fixture
def entrance(files: Files) -> Iterator[Entrance]:
    """A service with these files."""
    with running(tls=files.settings()) as entrance:
        yield entrance


@contextmanager
def open_request(entrance: Entrance, files: Files, holder: Holder) -> Iterator[Callable[[], Answer]]:
    """Send a request but for the end of its body; gives what sends that and reads the answer."""
    body = json.dumps(signing_request()).encode()
    with (
        socket.create_connection(("127.0.0.1", entrance.port), timeout=PATIENCE_S) as raw,
        RawConnection(files.context(holder).wrap_socket(raw, server_hostname="localhost")) as connection,
    ):
        connection.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body[:9])
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 1)

        def finish() -> Answer:
            connection.send(body[9:])
            answer = connection.answer()
            assert (answer[1].get("connection") == "close") == (entrance.log_lines("tls.reloaded") != [])
            return answer

        yield finish


def until_taken(entrance: Entrance) -> None:
    """Wait until the new files are in force."""
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)


def test_whom_the_new_list_names_is_not_signed_for(entrance: Entrance, files: Files, honest: Holder) -> None:
    """Its head came under the old list, the rest of its body under the new one; it is on record."""
    with open_request(entrance, files, honest) as finish:
        files.replace(files.client_crl, files.root.crl(honest))
        until_taken(entrance)
        status, _, problem = finish()
    assert (status, problem["code"], problem["retryable"]) == (401, "certificate_revoked", False)
    assert entrance.key_ring.signed == []
    eventually(lambda: refusals(entrance) == ["certificate_revoked"])
    assert not is_let_in(entrance, files.context(honest))


def test_whom_the_new_list_does_not_name_goes_on(entrance: Entrance, files: Files, honest: Holder) -> None:
    """An hourly list costs nobody an answer whose certificate an authority in `client_ca` issued."""
    with open_request(entrance, files, honest) as finish:
        files.replace(files.client_crl, files.root.crl(files.root.issue("other")))
        until_taken(entrance)
        assert finish()[0] == 200
    assert refusals(entrance) == []


def test_those_who_wait_for_the_hsm_go_on(entrance: Entrance, files: Files, honest: Holder) -> None:
    """So do requests that were whole already, in whatever number."""
    answers, context = list[int](), files.context(honest)

    def ask(number: int) -> None:
        with client(entrance, context) as asking:
            answers.append(sign(asking, f"T-{number}").status_code)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(12)]
    with entrance.key_ring.held() as held:
        for thread in threads:
            thread.start()
        held.wait_for(1)
        eventually(lambda: entrance.sample("signer_http_in_flight") == len(threads))
        files.replace(files.client_crl, files.root.crl())
        until_taken(entrance)
    for thread in threads:
        thread.join()
    assert answers == [200] * len(threads)


def test_a_new_certificate_of_the_service_costs_no_answer(files: Files) -> None:
    """It says nothing about clients, whoever vouched for them."""
    middle = Authority("Middle", files.root)
    files.replace(files.client_crl, files.root.crl() + middle.crl())
    certificate, key = server_certificate(files.root).write(files.directory, "fresh")
    holder = middle.issue("below", [uri(SPIFFE)])
    with running(tls=files.settings()) as entrance, open_request(entrance, files, holder) as finish:
        files.replace(files.key, key.read_bytes())
        files.replace(files.certificate, certificate.read_bytes())
        until_taken(entrance)
        assert finish()[0] == 200


def test_the_same_files_written_again_are_no_change(entrance: Entrance, files: Files, honest: Holder) -> None:
    """They are in force already: no connection ends; who may open the key counts all the same."""
    with open_request(entrance, files, honest) as finish:
        for path in (files.certificate, files.key, files.client_ca, files.client_crl):
            files.replace(path, path.read_bytes())
        threading.Event().wait(0.2)  # ten looks
        assert finish()[0] == 200
    assert entrance.sample("signer_tls_reloads_total", outcome="taken") == 0
    files.key.chmod(0o644)
    eventually(lambda: entrance.sample("signer_tls_stale") == 1)
    files.key.chmod(0o600)
    eventually(lambda: entrance.sample("signer_tls_stale") == 0)


def test_under_other_authorities_it_has_to_be_sent_anew(entrance: Entrance, files: Files, honest: Holder) -> None:
    """No handshake was made with these; that is no refusal of credentials, and not on record as one."""
    another = Authority("Another")
    with open_request(entrance, files, honest) as finish:
        files.replace(files.client_crl, files.root.crl() + another.crl())
        until_taken(entrance)
        files.replace(files.client_ca, files.root.pem + another.pem)
        eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 2)
        status, _, problem = finish()
    assert (status, problem["code"], problem["retryable"]) == (503, "certificate_unverified", True)
    assert entrance.key_ring.signed == []
    assert is_let_in(entrance, files.context(honest))
    assert entrance.sample("signer_http_refused_credentials_total", code="certificate_unverified") == 0


@pytest.mark.parametrize("known", [False, True], ids=["sent along", "in client_ca"])
def test_with_an_authority_in_between_it_has_to_be_sent_anew(files: Files, *, known: bool) -> None:
    """That one may be revoked: where it came along with the client nobody knows, where it is known the list says so."""
    middle = Authority("Middle", files.root)
    holder = middle.issue("below", [uri(SPIFFE)])
    files.replace(files.client_ca, files.root.pem + (middle.pem if known else b""))
    files.replace(files.client_crl, files.root.crl() + middle.crl())
    with running(tls=files.settings()) as entrance:
        with open_request(entrance, files, holder) as finish:
            files.replace(files.client_crl, files.root.crl(Holder(middle.certificate, middle.key)) + middle.crl())
            until_taken(entrance)
            assert finish()[2]["code"] == "certificate_unverified"
        assert not is_let_in(entrance, files.context(holder))
        assert entrance.key_ring.signed == []
