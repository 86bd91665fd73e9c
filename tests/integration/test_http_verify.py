"""Whether a signature is ours can be asked over HTTP: every version that counts is tried, and no HSM."""

import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from signer.errors import AuditUnavailableError
from signer.policy import AUDITOR, SIGN, VERIFY, CallerPolicy, Grant, Kills, Policy
from signer.signatures import ALGORITHMS, RSASSA_PKCS1_V1_5_SHA_256, RSASSA_PSS_SHA_256, fingerprint
from tests.integration.http_support import (
    ALIAS,
    CALLER,
    CANONICAL_MESSAGE,
    MESSAGE,
    Entrance,
    allow,
    eventually,
    running,
)
from tests.simulators import private_key
from tests.unit.policies import KILL

PSS = "RSASSA_PSS_SHA_256"
CONTENTS = [
    {"message": MESSAGE},
    {"payload": base64.b64encode(CANONICAL_MESSAGE).decode()},
    {"digest": base64.b64encode(hashlib.sha256(CANONICAL_MESSAGE).digest()).decode()},
]


def verify(entrance: Entrance, value: str, **changes: Any) -> httpx.Response:
    """Ask whether `value` is a signature over the message."""
    document = {"key": ALIAS, "message": MESSAGE, "signature": value, **changes}
    body = {name: value for name, value in document.items() if value is not None}
    return entrance.client.post("/v1/verify", json=body)


def signed_by(key: rsa.RSAPrivateKey, algorithm: str = "RSASSA_PKCS1_V1_5_SHA_256") -> str:
    """Sign the message with a key of one's own."""
    padding = {each.name: each.padding for each in (RSASSA_PKCS1_V1_5_SHA_256, RSASSA_PSS_SHA_256)}[algorithm]
    return base64.b64encode(key.sign(CANONICAL_MESSAGE, padding, hashes.SHA256())).decode()


@pytest.mark.parametrize("algorithm", [None, PSS])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_was_signed_is_valid(content: dict[str, Any], algorithm: str | None) -> None:
    """Whatever the content came as; the answer names key, algorithm and its own audit record, and no HSM was asked."""
    with running() as entrance:
        signature = entrance.sign(algorithm=algorithm).json()["signature"]
        entrance.key_ring.signed.clear()
        answer = verify(entrance, signature["value"], **{"message": None, **content}, algorithm=algorithm)
        assert entrance.key_ring.signed == []
        (entry,) = entrance.audit.of("verify")
    document = answer.json()
    key_fingerprint = fingerprint(private_key(ALIAS).public_key())
    assert answer.status_code == 200
    assert document == {
        "valid": True,
        "key_alias": ALIAS,
        "key_label": "settlement-key-2028",
        "key_fingerprint": key_fingerprint,
        "algorithm": algorithm or "RSASSA_PKCS1_V1_5_SHA_256",
        "jose_algorithm": "PS256" if algorithm else "RS256",
        "digest": signature["digest"],
        "tried": [{"key_label": "settlement-key-2028", "key_fingerprint": key_fingerprint}],
        "audit_id": document["audit_id"],
    }
    assert (entry.outcome, entry.detail, entry.caller, entry.key_fingerprint) == (
        "done", "valid", "http:loopback", key_fingerprint
    )  # fmt: skip


def test_what_was_not_signed_is_not_valid() -> None:
    """Another content, another algorithm, another key, a bit changed, too short, too long: all recorded."""
    with running() as entrance:
        value = entrance.sign().json()["signature"]["value"]
        octets = base64.b64decode(value)
        flipped = base64.b64encode(bytes([octets[0] ^ 1]) + octets[1:]).decode()
        answers = [
            verify(entrance, value, message={"amount": "1250.01", "currency": "EUR"}),
            verify(entrance, value, algorithm=PSS),
            verify(entrance, signed_by(private_key("somebody-else"))),
            verify(entrance, flipped),
            verify(entrance, base64.b64encode(octets[:-1]).decode()),
            verify(entrance, base64.b64encode(octets + b"\0").decode()),
            verify(entrance, "AA=="),
        ]
        details = [entry.detail for entry in entrance.audit.of("verify")]
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["valid"] for answer in answers] == [False] * 7
    assert {answer.json()["key_label"] for answer in answers} == {None}
    assert details == ["invalid"] * 7


def test_retired_versions_still_verify_and_upcoming_ones_do_not_yet() -> None:
    """The answer names the version that made the signature."""
    with running() as entrance:
        entrance.key_ring.add_version(ALIAS, "settlement-key-2029", datetime(2020, 1, 1, tzinfo=UTC))
        entrance.key_ring.add_version(ALIAS, "settlement-key-2030", datetime(2128, 1, 1, tzinfo=UTC))
        retired, upcoming = private_key(ALIAS), private_key("settlement-key-2030")
        old, new = (verify(entrance, signed_by(key)).json() for key in (retired, upcoming))
    assert (old["valid"], old["key_fingerprint"]) == (True, fingerprint(retired.public_key()))
    assert (new["valid"], new["key_fingerprint"]) == (False, None)
    assert fingerprint(upcoming.public_key()) not in {version["key_fingerprint"] for version in new["tried"]}


def test_an_overdue_version_verifies_though_it_does_not_sign_here_yet() -> None:
    """Another task may sign with it already: they find it one after another."""
    with running() as entrance:
        late = entrance.key_ring.add_version(ALIAS, "settlement-key-2029", datetime(2020, 1, 1, tzinfo=UTC))
        late.not_ready = "found late"
        answer = verify(entrance, signed_by(private_key("settlement-key-2029"))).json()
        late.known = False
        unknown = verify(entrance, signed_by(private_key("settlement-key-2029"))).json()
    assert (answer["valid"], answer["key_label"]) == (True, "settlement-key-2029")
    assert (unknown["valid"], len(unknown["tried"])) == (False, 1)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"key": "unheard-of"}, 404, "unknown_key"),
        ({"key": None}, 400, "invalid_input"),
        ({"signature": None}, 400, "invalid_base64"),
        ({"signature": "AA"}, 400, "invalid_base64"),
        ({"signature": 7}, 400, "invalid_base64"),
        ({"message": None}, 400, "invalid_transaction"),
        ({"payload": "AA=="}, 400, "invalid_transaction"),
        ({"algorithm": "RS256"}, 400, "unknown_algorithm"),
        ({"transaction_id": "T-1"}, 400, "invalid_input"),
    ],
)
def test_what_cannot_be_asked_is_a_problem(changes: dict[str, Any], status: int, code: str) -> None:
    """A malformed question is not answered with `valid: false`, which somebody could believe."""
    with running() as entrance:
        response = verify(entrance, "AA==", **changes)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert "valid" not in response.json()


def test_a_verdict_without_its_record_is_not_given() -> None:
    """Every answer has its audit record; while there can be none, there is no answer."""
    with running() as entrance:
        entrance.audit.fail_next(AuditUnavailableError("the disk is full"))
        response = verify(entrance, "AA==")
    assert (response.status_code, response.json()["code"]) == (503, "audit_unavailable")


MAY_VERIFY = Grant(operations=frozenset({VERIFY}))
MAY_SIGN = Grant(operations=frozenset({SIGN}))
PSS_DIGESTS = Grant(algorithms=frozenset({PSS}), contents=frozenset({"digest"}))


def granting(grant: Grant | None, *, roles: frozenset[str] = frozenset(), kills: Kills | None = None) -> Policy:
    """A policy of one caller."""
    keys = {} if grant is None else {ALIAS: grant}
    return Policy({CALLER: CallerPolicy(keys, roles=roles)}, kills or Kills())


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (granting(None), "not_authorised"),
        (granting(MAY_SIGN), "not_authorised"),
        (granting(PSS_DIGESTS), "not_authorised"),
        (granting(replace(PSS_DIGESTS, contents=frozenset({"message"}))), "not_authorised"),
        (granting(replace(PSS_DIGESTS, algorithms=frozenset(ALGORITHMS))), "not_authorised"),
        (granting(Grant(), kills=Kills(keys={ALIAS: KILL})), "key_killed"),
        (granting(MAY_SIGN, kills=Kills(keys={ALIAS: KILL})), "not_authorised"),
    ],
)
def test_what_is_not_granted_is_not_verified(policy: Policy, code: str) -> None:
    """Default deny, and the kill switch; refused on record, whatever the signature is."""
    with running() as entrance:
        value = entrance.sign().json()["signature"]["value"]
        entrance.authority.replace(policy)
        response = verify(entrance, value)
        (entry,) = entrance.audit.of("verify")
    assert (response.status_code, response.json()["code"]) == (403, code)
    assert response.json()["audit_id"]
    assert (entry.outcome, entry.error_code, entry.key_alias, entry.detail) == ("refused", code, ALIAS, None)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy({}), "not_authorised"),
        (granting(Grant(), kills=Kills(callers={CALLER: KILL})), "caller_killed"),
        (granting(None, roles=frozenset({AUDITOR}), kills=Kills(callers={CALLER: KILL})), "caller_killed"),
    ],
)
def test_strangers_and_killed_callers_are_not_even_heard(policy: Policy, code: str) -> None:
    """Refused before their question is read; the record names them."""
    with running() as entrance:
        entrance.authority.replace(policy)
        response = verify(entrance, "AAAA")
        eventually(lambda: entrance.audit.of("admit") != [])
        (entry,) = entrance.audit.of("admit")
    assert (response.status_code, response.json()["code"]) == (403, code)
    assert (entry.outcome, entry.error_code, entry.caller) == ("refused", code, CALLER)


@pytest.mark.parametrize(
    "policy",
    [
        granting(MAY_VERIFY),
        granting(
            replace(Grant(), algorithms=frozenset({"RSASSA_PKCS1_V1_5_SHA_256"}), contents=frozenset({"message"}))
        ),
        granting(None, roles=frozenset({AUDITOR})),
        granting(None, roles=frozenset({AUDITOR}), kills=Kills(keys={ALIAS: KILL})),
    ],
)
def test_what_is_granted_is_verified(policy: Policy) -> None:
    """Who may verify need not be one who may sign; auditors look at all keys, and at killed ones."""
    with running() as entrance:
        value = entrance.sign().json()["signature"]["value"]
        entrance.authority.replace(policy)
        response = verify(entrance, value)
        another = entrance.sign(transaction_id="TXN-2").status_code
    assert (response.status_code, response.json()["valid"]) == (200, True)
    assert another == (200 if SIGN in policy.callers[CALLER].keys.get(ALIAS, MAY_VERIFY).operations else 403)


def test_verifying_counts_towards_the_limit() -> None:
    """It costs a record each time; who is beyond the limit is told when to come again."""
    with running() as entrance:
        allow(entrance, transactions_per_s=0.01, burst=2)
        answers = [verify(entrance, "AA==") for _ in range(3)]
        signed = entrance.sign()
        outcomes = [(entry.outcome, entry.error_code) for entry in entrance.audit.of("verify")]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["Retry-After"]) > 1
    assert outcomes[2] == ("failed", "rate_limited")
    assert signed.status_code == 429


def test_an_unknown_key_is_refused_on_record() -> None:
    """Under the name it was asked for."""
    with running() as entrance:
        response = verify(entrance, "AA==", key="unheard-of")
        (entry,) = entrance.audit.of("verify")
    assert response.json()["audit_id"]
    assert (entry.outcome, entry.error_code, entry.key_alias) == ("refused", "unknown_key", "unheard-of")
