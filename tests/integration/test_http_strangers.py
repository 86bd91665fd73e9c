"""Who is not to be heard is refused before anything is done for it, and takes nothing from the others."""

import json
from typing import Any

import pytest

from signer.policy import CallerPolicy, Grant, Kills, Policy
from tests.integration.http_support import ALIAS, CALLER, FORBIDDEN_ALIAS, allow, eventually, running, signing_request
from tests.unit.policies import KILL

PATHS = (f"/v1/keys/{ALIAS}", f"/v1/keys/{ALIAS}/public-key", "/v1/keys", "/v1/signatures?transaction_id=T-1")
BATCH = {"key": ALIAS, "transactions": [{"transaction_id": "T-1", "message": {}}]}


def test_strangers_take_no_share_of_the_policy_s_records() -> None:
    """Whatever they ask for: whom the policy names is refused on record still, and its answer says where."""
    with running() as entrance:
        entrance.authority.replace(Policy({}))
        for _ in range(20):
            answers = [*map(entrance.client.get, PATHS), entrance.sign()]
            assert [answer.status_code for answer in answers] == [403] * 5
            assert not any("audit_id" in answer.json() for answer in answers)
        assert entrance.sample("signer_policy_refusals_total", code="not_authorised") == 100
        eventually(lambda: len(entrance.audit.of("admit")) == 60)
        allow(entrance)
        assert entrance.sign(key=FORBIDDEN_ALIAS).json()["audit_id"]
        operations = {entry.operation for entry in entrance.audit.entries if entry.error_code == "not_authorised"}
        assert operations >= {"admit", "sign"}
        assert operations.isdisjoint({"read_keys", "search"})


def test_a_stranger_takes_no_place() -> None:
    """With none left, it is still told who it is, and whom the policy names that it must come again."""
    with running(max_in_flight=1) as entrance, entrance.key_ring.held() as held, entrance.connect() as signing:
        body = json.dumps(signing_request()).encode()
        signing.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body)
        held.wait_for(1)
        assert [entrance.client.get(path).json()["code"] for path in PATHS] == ["overloaded"] * 4
        entrance.authority.replace(Policy({}))
        assert [entrance.client.get(path).json()["code"] for path in PATHS] == ["not_authorised"] * 4


@pytest.mark.parametrize(
    ("path", "document", "operation"),
    [
        ("/v1/sign", signing_request(), "sign"),
        ("/v1/sign", signing_request(dry_run=True), "dry_run"),
        ("/v1/sign-batch", BATCH, "sign"),
        ("/v1/sign-batch", {**BATCH, "transactions": [7, {}]}, "sign"),
        ("/v1/verify", signing_request(transaction_id=None, signature="AAAA"), "verify"),
    ],
)
def test_a_kill_between_head_and_body_counts(path: str, document: dict[str, Any], operation: str) -> None:
    """What was let in at the head is refused by the core, on record."""
    body = json.dumps(document).encode()
    with running() as entrance, entrance.connect() as connection:
        connection.post({"Content-Type": "application/json", "Content-Length": str(len(body))}, body[:5], path)
        eventually(lambda: entrance.sample("signer_http_unfinished_bodies") == 1)
        entrance.authority.replace(Policy({CALLER: CallerPolicy({ALIAS: Grant()})}, Kills(callers={CALLER: KILL})))
        connection.send(body[5:])
        status, _, problem = connection.answer()
        (entry,) = entrance.audit.of(operation)
    assert (status, problem["code"], entry.error_code, entry.caller) == (403, *["caller_killed"] * 2, CALLER)
