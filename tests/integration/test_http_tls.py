"""TLS in the service itself: files change under way, handshakes are bounded, and no session outlives its files."""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from signer.api import handshake, tls_files
from signer.api.tls_files import Material
from signer.http_settings import TlsSettings
from tests.integration.http_support import (
    CALLERS,
    PATIENCE_S,
    Entrance,
    eventually,
    running,
)
from tests.integration.tls_support import BAD_LISTS, SPIFFE, Files, client, is_let_in, is_still_let_in, refusals, sign
from tests.pki import DAY, Authority, Holder, server_certificate, uri


@pytest.fixture
def entrance(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entrance]:
    monkeypatch.setitem(CALLERS, "settlement", frozenset({SPIFFE}))
    with running(tls=files.settings()) as entrance:
        yield entrance


def test_the_certificate_names_the_caller(entrance: Entrance, files: Files, honest: Holder) -> None:
    """The audit record of the signature has the SPIFFE ID; the connection stays open for the next request."""
    with client(entrance, files.context(honest)) as asking:
        assert [sign(asking, name).status_code for name in ("T-1", "T-2", "T-3")] == [200] * 3
    callers = {entry.caller for entry in entrance.audit.entries if entry.operation == "sign"}
    assert callers == {SPIFFE}


def test_who_is_revoked_is_out_at_once(entrance: Entrance, files: Files, honest: Holder) -> None:
    """Nothing is restarted: the connection at hand ends, the next handshake fails, and others go on."""
    other = files.root.issue("other", [uri(SPIFFE)])
    with client(entrance, files.context(honest)) as asking, client(entrance, files.context(other)) as another:
        assert (sign(asking).status_code, sign(another).status_code) == (200, 200)
        files.replace(files.client_crl, files.root.crl(honest))
        eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
        assert not is_still_let_in(asking)
        assert not is_let_in(entrance, files.context(honest))
        assert is_still_let_in(another)
    eventually(lambda: "certificate_revoked" in refusals(entrance))


def test_a_request_under_way_gets_its_answer(entrance: Entrance, files: Files, honest: Holder) -> None:
    """Other files end idle connections, and busy ones after their answer."""
    with client(entrance, files.context(honest)) as asking:
        assert sign(asking).status_code == 200
        answers: list[httpx.Response] = []
        with entrance.key_ring.held() as held:
            other = threading.Thread(target=lambda: answers.append(sign(asking, "T-2")))
            other.start()
            held.wait_for(1)
            files.replace(files.client_ca, files.root.pem + Authority("Another").pem)
            files.replace(files.client_crl, files.root.crl())
            eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="refused") >= 1)
            files.replace(files.client_ca, files.root.pem)
            eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") >= 1)
        other.join()
    assert (answers[0].status_code, answers[0].headers["Connection"]) == (200, "close")


@pytest.mark.parametrize(("_name", "content"), BAD_LISTS, ids=[name for name, _ in BAD_LISTS])
def test_a_bad_revocation_list_changes_nothing(
    entrance: Entrance, files: Files, honest: Holder, _name: str, content: Callable[[Files], bytes]
) -> None:
    """The one before stays in force, for those it lets in and for those it does not; log and metric tell."""
    revoked = files.root.issue("revoked", [uri(SPIFFE)])
    files.replace(files.client_crl, files.root.crl(revoked))
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
    files.replace(files.client_crl, content(files))
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="refused") == 1)
    assert is_let_in(entrance, files.context(honest))
    assert not is_let_in(entrance, files.context(revoked))
    (line,) = entrance.log_lines("tls.reload_refused")
    assert "client_crl" in line["reason"]
    assert "canary" not in entrance.log.getvalue()


def test_a_list_that_comes_before_its_time_is_taken_when_it_has_come(
    entrance: Entrance, files: Files, honest: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, told once, shown in readiness and as a gauge; read once, and compared with the clock until then."""
    readings, read = list[Material](), tls_files.read

    def noted(settings: TlsSettings) -> Material:
        readings.append(read(settings))
        return readings[-1]

    monkeypatch.setattr(tls_files, "read", noted)
    files.replace(files.client_crl, files.root.crl(honest, updated=timedelta(seconds=2)))
    eventually(lambda: entrance.sample("signer_tls_stale") == 1)
    assert is_let_in(entrance, files.context(honest))
    (warning,) = entrance.readiness.warnings()
    assert "client_crl" in warning
    assert "stay so" in warning
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
    assert not is_let_in(entrance, files.context(honest))
    assert (entrance.sample("signer_tls_stale"), entrance.readiness.warnings()) == (0, ())
    assert len(entrance.log_lines("tls.reload_refused")) == 1
    assert entrance.sample("signer_tls_reloads_total", outcome="refused") == 1
    assert len(readings) == 1


def test_what_changes_while_it_is_read_is_not_told_of(
    entrance: Entrance, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be half of it: neither in force, nor does the metric say when it ends."""
    ends, read, readings = (
        entrance.sample("signer_tls_expires_timestamp_seconds", file="client_crl"),
        tls_files.read,
        [],
    )

    def written_meanwhile(settings: TlsSettings) -> Material:
        material = read(settings)
        readings.append(material)
        files.replace(files.client_crl, files.client_crl.read_bytes())
        return material

    monkeypatch.setattr(tls_files, "read", written_meanwhile)
    files.replace(files.client_crl, files.root.crl(next_update=3 * DAY))
    eventually(lambda: len(readings) >= 2)
    assert entrance.sample("signer_tls_expires_timestamp_seconds", file="client_crl") == ends
    assert entrance.sample("signer_tls_reloads_total", outcome="taken") == 0


def test_files_that_are_put_back_are_no_trouble(entrance: Entrance, files: Files) -> None:
    """What is in force is what lies there again: nothing warns any more."""
    kept = files.directory / "kept.pem"
    files.client_crl.rename(kept)
    eventually(lambda: entrance.sample("signer_tls_stale") == 1)
    kept.rename(files.client_crl)
    eventually(lambda: entrance.sample("signer_tls_stale") == 0)
    assert entrance.readiness.warnings() == ()


def test_the_servers_own_certificate_changes_under_way(entrance: Entrance, files: Files, honest: Holder) -> None:
    """While only one of certificate and key is new they do not fit, and the old pair stays; then new clients see it."""
    fresh = server_certificate(files.root)
    certificate, key = fresh.write(files.directory, "fresh")

    def shown() -> bytes | None:
        with (
            socket.create_connection(("127.0.0.1", entrance.port), timeout=PATIENCE_S) as raw,
            files.context(honest).wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            return tls.getpeercert(binary_form=True)

    before = shown()
    files.replace(files.certificate, certificate.read_bytes())
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="refused") == 1)
    assert shown() == before
    files.replace(files.key, key.read_bytes())
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
    assert shown() == fresh.certificate.public_bytes(serialization.Encoding.DER)
    expires = entrance.sample("signer_tls_expires_timestamp_seconds", file="certificate")
    assert expires == fresh.certificate.not_valid_after_utc.timestamp()


def test_a_connection_does_not_outlive_its_certificate(entrance: Entrance, files: Files) -> None:
    """It was good at the handshake; each request looks at the clock again."""
    brief = files.root.issue("brief", [uri(SPIFFE)], ends=timedelta(seconds=3))
    with client(entrance, files.context(brief)) as asking:
        assert sign(asking).status_code == 200
        last: list[httpx.Response] = []

        def expired() -> bool:
            last[:] = [sign(asking)]
            return last[0].status_code != 200

        eventually(expired)
        assert (last[0].status_code, last[0].json()["code"]) == (401, "certificate_expired")


def test_a_handshake_under_way_counts_as_under_the_old_files(entrance: Entrance, files: Files, honest: Holder) -> None:
    """It began before the revocation was in force and ends after it: the request of the revoked is not answered."""
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = files.context(honest).wrap_bio(received, to_send, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", entrance.port), timeout=PATIENCE_S) as raw:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        raw.sendall(to_send.read())
        received.write(raw.recv(65_536))
        files.replace(files.client_crl, files.root.crl(honest))
        eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
        tls.do_handshake()
        tls.write(b"GET /v1/keys HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw.sendall(to_send.read())
        with suppress(ConnectionError):
            assert raw.recv(65_536) == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_not_resumed_under_other_files(
    entrance: Entrance, files: Files, honest: Holder, version: ssl.TLSVersion
) -> None:
    """A resumed session shows no certificate anew: whoever was revoked since could go on."""
    context = files.context(honest)
    context.minimum_version = context.maximum_version = version

    def answer(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", entrance.port), timeout=PATIENCE_S) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"GET /v1/keys HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, session = tls.recv(12), tls.session
            with suppress(OSError):
                tls.unwrap()  # a session that was not ended is not kept either
            return status, session

    status, session = answer(None)
    assert status == b"HTTP/1.1 200"
    files.replace(files.client_crl, files.root.crl(honest))
    eventually(lambda: entrance.sample("signer_tls_reloads_total", outcome="taken") == 1)
    with suppress(OSError):  # as the alert or the end of the connection comes first
        assert answer(session)[0] == b""
    eventually(lambda: refusals(entrance) == ["certificate_revoked"])


def test_silent_connections_are_bounded_and_end(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing holds one of few places, for a while, and leaves a record."""
    monkeypatch.setattr(handshake, "HANDSHAKE_TIMEOUT_S", 1.0)
    with running(tls=files.settings(), max_connections=2) as entrance, ExitStack() as clients:
        connections = [clients.enter_context(entrance.connect()) for _ in range(60)]
        eventually(lambda: refusals(entrance).count("tls_handshake_timeout") >= 34)
        assert all(connection.is_closed() for connection in connections)
        assert refusals(entrance).count("tls_handshake_timeout") == 34


def test_who_only_connects_is_no_refusal(entrance: Entrance, files: Files, honest: Holder) -> None:
    """Balancers look whether the port is open; that is nobody who wanted in."""
    for _ in range(5):
        entrance.connect().socket.close()
    assert is_let_in(entrance, files.context(honest))
    assert refusals(entrance) == []


def test_plain_http_is_refused_and_told(entrance: Entrance) -> None:
    """No answer goes out unencrypted, and the record says what it was."""
    with entrance.connect() as connection:
        connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.is_closed()
    eventually(lambda: refusals(entrance) == ["tls_expected"])


def test_many_connections_each_say_all_at_once(entrance: Entrance, files: Files, honest: Holder) -> None:
    """The first request often arrives together with the end of the handshake, and none is lost."""
    context = files.context(honest)
    for number in range(100):
        connection = http.client.HTTPSConnection("localhost", entrance.port, context=context, timeout=PATIENCE_S)
        connection.request("GET", "/v1/keys")
        assert connection.getresponse().status == 200, number
        connection.close()
