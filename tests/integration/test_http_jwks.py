"""The issuer's keys over HTTP: fetched beside the event loop, on their own time, from where the settings say."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from signer.api import jwks
from tests.integration.http_support import CALLERS, Entrance, eventually, running, signing_request
from tests.issuer import AUDIENCE, CALLER, ISSUER, Issuer

ISSUING = Issuer()


@dataclass
class Site:
    """Where an issuer publishes its keys."""

    url: str = ""
    status: int = 200
    document: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    lets_go: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(document=ISSUING.jwks())
    made.lets_go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.paths.append(self.path)
            made.lets_go.wait()
            self.send_response(made.status)
            for name, value in {"Content-Length": str(len(made.document)), **made.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.document)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/jwks"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.lets_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def entrance(site: Site, **settings: Any) -> Iterator[Entrance]:
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": site.url, **settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CALLERS, "settlement", frozenset({CALLER}))
        with running(jwt=jwt) as running_entrance:
            yield running_entrance


def ask(entrance: Entrance, token: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token or ISSUING.token()}"}
    return entrance.client.get("/v1/keys", headers=headers)


def refreshes(entrance: Entrance, outcome: str) -> float:
    return entrance.sample("signer_jwks_refreshes_total", outcome=outcome)


def test_a_new_key_is_fetched_when_a_token_names_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the next turn; the token that named it first is refused, the next is not."""
    monkeypatch.setattr(jwks, "ASKED_AGAIN_AFTER_S", 0.02)
    with entrance(site, refresh_s=3600) as running_entrance:
        assert ask(running_entrance).status_code == 200
        site.document = ISSUING.jwks("key-2")
        rotated = ISSUING.token({"kid": "key-2"})
        assert ask(running_entrance, rotated).json()["code"] == "token_key_unknown"
        eventually(lambda: ask(running_entrance, rotated).status_code == 200)


def test_made_up_keys_are_not_asked_for_again_and_again(site: Site) -> None:
    """One fetch in ten seconds, however many names."""
    with entrance(site, refresh_s=3600) as running_entrance:
        for number in range(100):
            assert ask(running_entrance, ISSUING.token({"kid": f"key-{number + 2}"})).status_code == 401
        assert len(site.paths) <= 2


def test_old_keys_serve_while_the_issuer_is_away(site: Site) -> None:
    """An error of the issuer is no outage of ours."""
    with entrance(site, refresh_s=0.02) as running_entrance:
        site.status = 503
        eventually(lambda: refreshes(running_entrance, "failed") >= 2)
        assert ask(running_entrance).status_code == 200


def test_a_fetch_that_hangs_holds_nobody_up(site: Site) -> None:
    """It is not on the event loop."""
    with entrance(site, refresh_s=0.02) as running_entrance:
        site.lets_go.clear()
        before = len(site.paths)
        eventually(lambda: len(site.paths) > before)
        assert ask(running_entrance).status_code == 200
        assert running_entrance.client.get("/livez").status_code == 200
        site.lets_go.set()


@pytest.mark.parametrize("trouble", ["redirect", "too large", "no keys", "refused"])
def test_it_starts_without_keys_and_says_so(site: Site, trouble: str) -> None:
    """503, not 401: it is not the token's fault. No redirect is followed, and no document read without an end."""
    good = site.document
    if trouble == "redirect":
        site.status, site.headers = 302, {"Location": site.url + "/elsewhere"}
    elif trouble == "too large":
        site.document = good + b" " * jwks.MAX_JWKS_BYTES
    elif trouble == "no keys":
        site.document = b'{"keys":[]}'
    else:
        site.status = 404
    with entrance(site, refresh_s=0.02) as running_entrance:
        answer = ask(running_entrance)
        assert (answer.status_code, answer.json()["code"]) == (503, "token_keys_unavailable")
        assert set(site.paths) == {"/jwks"}
        site.status, site.document = 200, good
        eventually(lambda: ask(running_entrance).status_code == 200)


def test_tokens_sign_too(site: Site) -> None:
    """The policy decides about issuer and subject, and the record names them."""
    token = ISSUING.token()
    with entrance(site) as running_entrance:
        headers = {"Authorization": f"Bearer {token}"}
        answer = running_entrance.client.post("/v1/sign", json=signing_request(), headers=headers)
        assert answer.status_code == 200
        assert [entry.caller for entry in running_entrance.audit.of("sign")] == [CALLER]
        assert token not in running_entrance.log.getvalue()
