"""What the API tells about keys: versions with their states, and one key set that verifiers may keep for a while."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import RSAAlgorithm

from signer.policy import AUDITOR, CallerPolicy, Grant, Kills, Policy
from signer.signatures import fingerprint
from tests.integration.http_support import ALIAS, CALLER, FORBIDDEN_ALIAS, Entrance, eventually, running
from tests.simulators import private_key
from tests.unit.policies import KILL

JWKS = "/.well-known/jwks.json"
ALGORITHMS = [
    {"name": "RSASSA_PKCS1_V1_5_SHA_256", "jose": "RS256"},
    {"name": "RSASSA_PSS_SHA_256", "jose": "PS256"},
]


PAST, BEGIN, END = (datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2128, 2129))
SECOND, THIRD = "settlement-key-2029", "settlement-key-2030"


def rotate(entrance: Entrance) -> None:
    """Let the first key retire, the second sign, and the third be planned."""
    entrance.key_ring.add_version(ALIAS, SECOND, PAST, elder_until=END)
    entrance.key_ring.add_version(ALIAS, THIRD, BEGIN)


def test_a_key_is_described_with_its_versions() -> None:
    """Each has its state and its dates; label and fingerprint above are those of the one that signs."""
    with running() as entrance:
        rotate(entrance)
        key = entrance.client.get(f"/v1/keys/{ALIAS}").json()
        listed = entrance.client.get("/v1/keys").json()["keys"]
    del key["audit_id"]
    assert key in listed
    assert [item["alias"] for item in listed] == [ALIAS]
    active_fingerprint = fingerprint(private_key(SECOND).public_key())
    assert (key["alias"], key["label"], key["fingerprint"]) == (ALIAS, SECOND, active_fingerprint)
    assert key["algorithms"] == ALGORITHMS
    assert [(version["state"], version["active_from"], version["verify_until"]) for version in key["versions"]] == [
        ("retired", None, "2129-01-01T00:00:00.000000Z"),
        ("active", "2020-01-01T00:00:00.000000Z", None),
        ("upcoming", "2128-01-01T00:00:00.000000Z", None),
    ]
    assert key["versions"][0]["fingerprint"] == fingerprint(private_key(ALIAS).public_key())


@pytest.mark.parametrize("path", ["/v1/keys/unheard-of", "/v1/keys/unheard-of/public-key"])
def test_an_unknown_alias_has_a_code_of_its_own(path: str) -> None:
    """Which tells it from a wrong path."""
    with running() as entrance:
        response = entrance.client.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "unknown_key")


OF_ANOTHER = [f"/v1/keys/{FORBIDDEN_ALIAS}", f"/v1/keys/{FORBIDDEN_ALIAS}/public-key"]


@pytest.mark.parametrize("path", OF_ANOTHER)
def test_a_key_of_others_is_not_told_of(path: str) -> None:
    """The refusal has its record, which names the key; nothing that only looks like a name gets in there."""
    with running() as entrance:
        refused = entrance.client.get(path)
        no_alias = entrance.client.get("/v1/keys/no%20alias")
        entries = entrance.audit.of("read_keys")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_authorised")
    assert (no_alias.status_code, no_alias.json()["code"]) == (403, "not_authorised")
    assert [(entry.outcome, entry.error_code, entry.key_alias) for entry in entries] == [
        ("refused", "not_authorised", FORBIDDEN_ALIAS),
        ("refused", "not_authorised", None),
    ]
    assert [UUID(answer.json()["audit_id"]).int for answer in (refused, no_alias)] == [0, 1]


def test_whoever_reads_of_keys_is_on_record() -> None:
    """With what was read; the answer names the record, but for a public key, which is nothing but that."""
    with running() as entrance:
        answers = [entrance.client.get("/v1/keys"), entrance.client.get(f"/v1/keys/{ALIAS}")]
        public_key = entrance.client.get(f"/v1/keys/{ALIAS}/public-key")
        entries = entrance.audit.of("read_keys")
    assert [UUID(answer.json()["audit_id"]).int for answer in answers] == [0, 1]
    assert public_key.status_code == 200
    assert [(entry.caller, entry.outcome, entry.key_alias) for entry in entries] == [
        (CALLER, "done", None),
        (CALLER, "done", ALIAS),
        (CALLER, "done", ALIAS),
    ]


def test_auditors_are_told_of_every_key() -> None:
    """Though they may use none."""
    with running() as entrance:
        entrance.authority.replace(Policy({CALLER: CallerPolicy({}, roles=frozenset({AUDITOR}))}))
        listed = entrance.client.get("/v1/keys").json()["keys"]
        answers = [entrance.client.get(path) for path in OF_ANOTHER]
    assert [item["alias"] for item in listed] == [ALIAS, FORBIDDEN_ALIAS]
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (Policy({}), "not_authorised"),
        (Policy({CALLER: CallerPolicy({ALIAS: Grant()})}, Kills(callers={CALLER: KILL})), "caller_killed"),
        (
            Policy({CALLER: CallerPolicy({}, roles=frozenset({AUDITOR}))}, Kills(callers={CALLER: KILL})),
            "caller_killed",
        ),
    ],
)
def test_strangers_and_killed_callers_are_told_of_no_key(policy: Policy, code: str) -> None:
    """On each way; but for the key set, which is for whoever comes."""
    with running() as entrance:
        entrance.authority.replace(policy)
        paths = ("/v1/keys", f"/v1/keys/{ALIAS}", f"/v1/keys/{ALIAS}/public-key")
        answers = [entrance.client.get(path) for path in paths]
        key_set = entrance.client.get(JWKS)
        eventually(lambda: len(entrance.audit.of("admit")) == 3)
        recorded = [(entry.error_code, entry.caller) for entry in entrance.audit.of("admit")]
        assert entrance.sample("signer_policy_refusals_total", code=code) == 3
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(403, code)] * 3
    assert recorded == [(code, CALLER)] * 3
    assert key_set.status_code == 200


def test_a_killed_key_is_described_still() -> None:
    """Its public half is known to everybody, and signatures of before the kill are to be verified."""
    with running() as entrance:
        entrance.authority.replace(Policy({CALLER: CallerPolicy({ALIAS: Grant()})}, Kills(keys={ALIAS: KILL})))
        answers = [entrance.client.get(f"/v1/keys/{ALIAS}"), entrance.client.get(f"/v1/keys/{ALIAS}/public-key")]
    assert [answer.status_code for answer in answers] == [200, 200]


def keys_in(key_set: dict[str, Any]) -> dict[str, RSAPublicKey]:
    """Read a key set with a library that is not ours."""
    keys = {jwk["kid"]: RSAAlgorithm.from_jwk(jwk) for jwk in key_set["keys"]}
    return {kid: key for kid, key in keys.items() if isinstance(key, RSAPublicKey)}


def test_the_key_set_holds_all_that_is_to_be_believed_or_soon_will_be() -> None:
    """Active, upcoming and retired versions of every alias; others verify our signatures with it."""
    with running() as entrance:
        rotate(entrance)
        response = entrance.client.get(JWKS)
    keys = keys_in(response.json())
    expected = [private_key(name) for name in (ALIAS, SECOND, THIRD, FORBIDDEN_ALIAS)]
    assert set(keys) == {fingerprint(key.public_key()) for key in expected}
    assert response.headers["content-type"] == "application/jwk-set+json"
    value = private_key(SECOND).sign(b"content", PKCS1v15(), hashes.SHA256())
    keys[fingerprint(private_key(SECOND).public_key())].verify(value, b"content", PKCS1v15(), hashes.SHA256())


def test_verifiers_may_keep_the_key_set_and_ask_whether_it_changed() -> None:
    """304 while it has not, whichever way the tag is written; a new version changes tag and body."""
    with running() as entrance:
        first = entrance.client.get(JWKS)
        tag = first.headers["ETag"]
        answers = [
            entrance.client.get(JWKS, headers={"If-None-Match": value})
            for value in (tag, f"W/{tag}", f'"other", {tag}', "*")
        ]
        stale = entrance.client.get(JWKS, headers={"If-None-Match": '"other", nonsense'})
        entrance.key_ring.add_version(ALIAS, SECOND, BEGIN)
        changed = entrance.client.get(JWKS, headers={"If-None-Match": tag})
    assert [(answer.status_code, answer.content, answer.headers["ETag"]) for answer in answers] == [(304, b"", tag)] * 4
    assert {answer.headers["Cache-Control"] for answer in [first, *answers]} == {"public, max-age=300"}
    assert (stale.status_code, stale.content) == (200, first.content)
    assert (changed.status_code, changed.headers["ETag"] != tag) == (200, True)


def test_nothing_else_may_be_kept() -> None:
    """Answers about transactions, and refusals, are for one reader and one moment."""
    with running() as entrance:
        answers = [entrance.sign(), entrance.client.get("/v1/keys"), entrance.client.get("/.well-known/nothing")]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
