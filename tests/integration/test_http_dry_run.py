"""A dry run is answered as the real one would be, and leaves nothing but its record."""

from typing import Any

import pytest

from signer.errors import AuditUnavailableError, LedgerUnavailableError
from signer.policy import CallerPolicy, Grant, Kill, Kills, Policy
from signer.signatures import fingerprint
from tests.integration.http_support import ALIAS, CALLER, FORBIDDEN_ALIAS, Entrance, allow, running
from tests.simulators import private_key

PSS = "RSASSA_PSS_SHA_256"


def left(entrance: Entrance) -> tuple[int, int, list[int]]:
    """What was signed, what is bound, and how often the ledger was written."""
    return len(entrance.key_ring.signed), len(entrance.ledger.bound), entrance.ledger.sizes["claim"]


def test_nothing_is_signed_and_nothing_stays_claimed() -> None:
    """The answer names key, algorithm and record; the transaction can be signed afterwards, over anything."""
    with running() as entrance:
        response = entrance.sign(dry_run=True, algorithm=PSS)
        assert left(entrance) == (0, 0, [])
        (entry,) = entrance.audit.of("dry_run")
        signed = entrance.sign(message={"amount": "2.00"})
    answer = response.json()
    assert (response.status_code, answer["transaction_id"], answer["jose_algorithm"]) == (200, "TXN-000001", "PS256")
    assert answer["dry_run"] == {
        "outcome": "signed",
        "algorithm": PSS,
        "key_alias": ALIAS,
        "key_label": "settlement-key-2028",
        "key_fingerprint": fingerprint(private_key(ALIAS).public_key()),
        "digest": answer["dry_run"]["digest"],
        "audit_id": answer["dry_run"]["audit_id"],
    }
    assert (entry.outcome, entry.transaction_id, entry.caller) == ("done", "TXN-000001", CALLER)
    assert signed.status_code == 200


def test_it_knows_what_was_signed() -> None:
    """The same again would be replayed; other content would be refused, and is."""
    with running() as entrance:
        entrance.sign()
        replay = entrance.sign(dry_run=True)
        conflict = entrance.sign(dry_run=True, message={"amount": "2.00"})
        assert left(entrance) == (1, 1, [1])
    assert replay.json()["dry_run"]["outcome"] == "replayed"
    assert (conflict.status_code, conflict.json()["code"]) == (409, "transaction_conflict")
    assert conflict.json()["audit_id"]


def kill_key(entrance: Entrance) -> None:
    killed = Kills(keys={ALIAS: Kill("somebody", "drill", "2028-03-08T12:00:00Z")})
    entrance.authority.replace(Policy({CALLER: CallerPolicy({ALIAS: Grant()})}, killed))


def exhaust(entrance: Entrance) -> None:
    allow(entrance, transactions_per_s=0.001)
    assert entrance.sign(dry_run=True).status_code == 200


def put_key_off(entrance: Entrance) -> None:
    entrance.key_ring.not_ready(ALIAS, "its test signature failed")


def open_breaker(entrance: Entrance) -> None:
    entrance.key_ring.troubles = ("the HSM does not sign: gone",)


@pytest.mark.parametrize(
    ("prepare", "changes", "status", "code"),
    [
        (None, {"key": FORBIDDEN_ALIAS}, 403, "not_authorised"),
        (None, {"key": "unheard-of"}, 404, "unknown_key"),
        (None, {"transaction_id": None}, 400, "transaction_id_required"),
        (kill_key, {}, 403, "key_killed"),
        (exhaust, {}, 429, "rate_limited"),
        (put_key_off, {}, 503, "key_not_ready"),
        (open_breaker, {}, 503, "hsm_unavailable"),
        (lambda it: it.ledger.fail_next_peek(LedgerUnavailableError("gone")), {}, 503, "ledger_unavailable"),
        (lambda it: it.audit.fail_next(AuditUnavailableError("gone")), {}, 503, "audit_unavailable"),
        (None, {"dry_run": "yes"}, 400, "invalid_input"),
        (None, {"dry_run": 1}, 400, "invalid_input"),
    ],
)
def test_it_is_refused_as_the_real_one_would_be(prepare: Any, changes: dict[str, Any], status: int, code: str) -> None:
    """By the policy, the limits, the keys, the HSM, the ledger and the audit log."""
    with running() as entrance:
        if prepare is not None:
            prepare(entrance)
        response = entrance.sign(**{"dry_run": True, **changes})
        assert left(entrance)[:2] == (0, 0)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_batch_can_be_tried_too() -> None:
    """Each item is answered for itself; the policy's size counts."""
    with running() as entrance:
        entrance.sign(transaction_id="T-1")
        items = [{"reference": f"line-{n}", "transaction_id": f"T-{n}", "digest": "A" * 43 + "="} for n in range(3)]
        body = {"key": ALIAS, "dry_run": True, "transactions": items}
        answer = entrance.client.post("/v1/sign-batch", json=body).json()
        assert left(entrance) == (1, 1, [1])
        allow(entrance, max_batch=2)
        refused = entrance.client.post("/v1/sign-batch", json=body)
    codes = [result.get("error", {}).get("code") for result in answer["results"]]
    assert codes == [None, "transaction_conflict", None]
    assert (answer["dry_run"], answer["signed"], answer["failed"]) == (True, 2, 1)
    assert answer["results"][0]["dry_run"]["outcome"] == "signed"
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many_transactions")


def test_the_log_calls_it_what_it_is() -> None:
    """Who counts signatures by the log does not count what was only tried."""
    with running() as entrance:
        entrance.sign(dry_run=True)
        items = [{"transaction_id": f"T-{number}", "digest": "A" * 43 + "="} for number in range(3)]
        entrance.client.post("/v1/sign-batch", json={"key": ALIAS, "dry_run": True, "transactions": [*items, 7]})
        (one,), (many,) = entrance.log_lines("request.rehearsed"), entrance.log_lines("request.batch_rehearsed")
        assert entrance.log_lines("request.signed") + entrance.log_lines("request.batch_signed") == []
    assert (one["dry_run"], one["status"]) == (True, 200)
    assert (many["dry_run"], many["rehearsed"], many["failed"], "signed" in many) == (True, 3, 1, False)
