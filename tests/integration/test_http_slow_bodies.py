"""Who sends slowly, or is not to be heard at all, takes nothing from the others."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from signer.policy import CallerPolicy, Grant, Kill, Kills, Policy
from tests.integration.http_support import (
    ALIAS,
    CALLERS,
    PATIENCE_S,
    Entrance,
    RawConnection,
    eventually,
    running,
    signing_request,
)
from tests.integration.tls_support import SPIFFE, Files, client, sign
from tests.pki import Holder, uri

PLACES = 4
SLOW = "spiffe://bank.example/slow"
HEAD = {"Content-Type": "application/json", "Content-Length": "2000"}
MESSAGE = {"text": "x" * 150_000}
BODIES = [json.dumps(signing_request(transaction_id=f"L-{number}", message=MESSAGE)).encode() for number in range(4)]
LARGE = {"Content-Type": "application/json", "Content-Length": str(len(BODIES[0]))}


@pytest.fixture
def entrance(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entrance]:
    monkeypatch.setitem(CALLERS, ALIAS, frozenset({SPIFFE, SLOW}))
    with running(tls=files.settings(), max_in_flight=PLACES) as entrance:
        yield entrance


@pytest.fixture
def slow(files: Files) -> Holder:
    return files.root.issue("slow", [uri(SLOW)])


def connect(entrance: Entrance, files: Files, holder: Holder, closing: ExitStack) -> RawConnection:
    """Speak HTTP by hand, over TLS."""
    raw = socket.create_connection(("127.0.0.1", entrance.port), timeout=PATIENCE_S)
    return closing.enter_context(RawConnection(files.context(holder).wrap_socket(raw, server_hostname="localhost")))


def test_slow_bodies_of_one_take_no_place_from_another(
    entrance: Entrance, files: Files, honest: Holder, slow: Holder
) -> None:
    """As many as there are places: the other is served at once, and so is the slow one where it is not slow."""
    with ExitStack() as closing:
        for _ in range(PLACES):
            connect(entrance, files, slow, closing).post(HEAD, b'{"a')
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == PLACES)
        assert entrance.sample("signer_http_in_flight") == 0.0
        one_more = connect(entrance, files, slow, closing)
        one_more.post({**HEAD, "Expect": "100-continue"})
        status, answered, problem = one_more.answer()
        assert (status, problem["code"], answered["retry-after"]) == (503, "overloaded", "1")
        whole = json.dumps(signing_request(transaction_id="T-2")).encode()
        one_more = connect(entrance, files, slow, closing)
        one_more.post({**HEAD, "Content-Length": str(len(whole))}, whole)
        assert one_more.answer()[0] == 200
        large = connect(entrance, files, honest, closing)
        large.post(LARGE, BODIES[0][:10_000])
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == PLACES + 1)
        large.send(BODIES[0][10_000:])
        assert large.answer()[0] == 200
    eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 0.0)


def test_the_unfinished_bodies_of_all_are_bounded(entrance: Entrance, files: Files) -> None:
    """However many callers are slow, memory is not for them alone."""
    names = [f"spiffe://bank.example/slow-{number}" for number in range(5)]
    entrance.authority.replace(Policy({name: CallerPolicy({ALIAS: Grant()}) for name in names}))
    with ExitStack() as closing:
        for name in names[:4]:
            holder = files.root.issue("slow", [uri(name)])
            for _ in range(PLACES):
                connect(entrance, files, holder, closing).post(HEAD, b'{"a')
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 4 * PLACES)
        fifth = connect(entrance, files, files.root.issue("slow", [uri(names[4])]), closing)
        fifth.post({**HEAD, "Expect": "100-continue"})
        assert fifth.answer()[2]["code"] == "overloaded"


def test_large_bodies_in_several_segments_are_served(entrance: Entrance, files: Files, honest: Holder) -> None:
    """As many at once as there are places, each in pieces."""
    with ExitStack() as closing:
        large = [connect(entrance, files, honest, closing) for _ in BODIES]
        for connection, body in zip(large, BODIES, strict=True):
            connection.post(LARGE, body[:70_000])
        for start, end in ((70_000, 140_000), (140_000, len(BODIES[0]))):
            for connection, body in zip(large, BODIES, strict=True):
                connection.send(body[start:end])
        assert [connection.answer()[0] for connection in large] == [200] * PLACES


@pytest.mark.parametrize(("killed", "code"), [(True, "caller_killed"), (False, "not_authorised")])
def test_who_is_not_to_be_heard_is_refused_at_the_head(
    entrance: Entrance, files: Files, honest: Holder, slow: Holder, *, killed: bool, code: str
) -> None:
    """Killed, or unknown to the policy: refused before a body comes, on record up to a bound, and nobody waits."""
    known = {name: CallerPolicy({ALIAS: Grant()}) for name in (SPIFFE, *([SLOW] if killed else []))}
    kills = Kills(callers={SLOW: Kill("somebody", "lost its key", "now")} if killed else {})
    entrance.authority.replace(Policy(known, kills))
    with ExitStack() as closing:
        knocking = [connect(entrance, files, slow, closing) for _ in range(70)]
        for connection in knocking:
            connection.post(HEAD, b'{"a')
        answers = [connection.answer() for connection in knocking]
        assert {(status, problem["code"]) for status, _, problem in answers} == {(403, code)}
        with client(entrance, files.context(honest)) as asking:
            assert sign(asking).status_code == 200
        eventually(lambda: len(recorded(entrance)) == 60)
        (request_id, caller, found) = recorded(entrance)[0]
        assert (caller, found) == (SLOW, code)
        assert request_id in {problem["request_id"] for _, _, problem in answers}
    assert entrance.sample("signer_policy_refusals_total", code=code) == 70.0


def recorded(entrance: Entrance) -> list[tuple[str | None, str | None, str | None]]:
    """What the audit log says of those who were not admitted."""
    return [(entry.message_id, entry.caller, entry.error_code) for entry in entrance.audit.entries
            if entry.operation == "admit"]  # fmt: skip
