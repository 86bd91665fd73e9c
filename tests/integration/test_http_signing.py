"""What is signed over HTTP verifies, is signed once, and can be checked with the public key the API hands out."""

import base64
import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from signer.signatures import fingerprint
from tests.integration.http_support import (
    ALIAS,
    CANONICAL_MESSAGE,
    MESSAGE,
    Entrance,
    eventually,
    is_valid,
    running,
    signing_request,
)
from tests.simulators import private_key

PAYLOAD = b"<Document>pacs.008</Document>"
CONTENTS = {
    "message": (MESSAGE, CANONICAL_MESSAGE),
    "payload": (base64.b64encode(PAYLOAD).decode(), PAYLOAD),
    "digest": (base64.b64encode(hashlib.sha256(PAYLOAD).digest()).decode(), PAYLOAD),
}


@pytest.mark.parametrize("algorithm", [None, "RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"])
@pytest.mark.parametrize("member", list(CONTENTS))
def test_every_kind_of_content_is_signed_under_every_algorithm(member: str, algorithm: str | None) -> None:
    """The signature is over the canonical bytes, by the algorithm that was asked for, and says all about itself."""
    value, content = CONTENTS[member]
    with running() as entrance:
        response = entrance.sign(**{"message": None, member: value, "algorithm": algorithm})
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert list(answer) == ["transaction_id", "jose_algorithm", "signature"]
    assert answer["transaction_id"] == "TXN-000001"
    assert "Idempotency-Replayed" not in response.headers
    assert answer["signature"]["algorithm"] == (algorithm or "RSASSA_PKCS1_V1_5_SHA_256")
    assert answer["signature"]["key_alias"] == ALIAS
    assert is_valid(answer, content)
    assert not is_valid(answer, content + b" ")


def test_the_same_transaction_gets_the_very_same_answer() -> None:
    """PSS is randomised, so equal bodies show that the second was kept and not made; only a header tells them apart."""
    with running() as entrance:
        first, second = (entrance.sign(algorithm="RSASSA_PSS_SHA_256") for _ in range(2))
        assert len(entrance.key_ring.signed) == 1
    assert second.content == first.content
    assert [answer.headers.get("Idempotency-Replayed") for answer in (first, second)] == [None, "true"]


def test_another_digest_for_a_signed_transaction_is_a_conflict() -> None:
    """One transaction id gets signatures over one digest and by one algorithm only."""
    with running() as entrance:
        entrance.sign()
        answers = [entrance.sign(message={"amount": "1.00"}), entrance.sign(algorithm="RSASSA_PSS_SHA_256")]
        assert len(entrance.key_ring.signed) == 1
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "transaction_conflict")] * 2
    assert "Retry-After" not in answers[0].headers


def test_a_transaction_that_is_being_signed_is_refused_for_the_moment() -> None:
    """The second request for it is told to come again, and then gets the first one's signature."""
    with running() as entrance, ThreadPoolExecutor(1) as other:
        with entrance.key_ring.held() as held:
            first = other.submit(entrance.sign)
            held.wait_for(1)
            second = entrance.sign()
        assert first.result().status_code == 200
        third = entrance.sign()
    assert (second.status_code, second.json()["code"]) == (409, "transaction_in_progress")
    assert (second.json()["retryable"], second.headers["Retry-After"]) == (True, "1")
    assert third.json()["signature"] == first.result().json()["signature"]


def test_the_audit_log_names_client_and_request() -> None:
    """The request id of the answer finds the audit record, and no header can make up the client's address."""
    with running() as entrance:
        request = signing_request()
        response = entrance.client.post("/v1/sign", json=request, headers={"X-Forwarded-For": "203.0.113.9"})
        (entry,) = entrance.audit.of("sign")
    assert (entry.entrance, entry.caller, entry.channel) == ("http", "http:loopback", "127.0.0.1")
    assert entry.message_id == response.headers["X-Request-Id"]


def test_one_line_tells_about_each_request() -> None:
    """It carries ids, outcome and where the time went, and the caller's own request id where that is a UUID."""
    theirs = "6f1e3a52-2f3c-4c0a-9d3e-1b5a7f0c2d11"
    with running() as entrance:
        headers = {"X-Request-Id": theirs}
        signed = entrance.client.post("/v1/sign", json=signing_request(), headers=headers)
        refused = entrance.sign(message={"amount": "2.00"})
        unknown = entrance.sign(key="unheard-of")
        (about_signed,) = entrance.log_lines("request.signed")
        about_refused, about_unknown = entrance.log_lines("request.refused")
    assert about_signed["request_id"] == signed.headers["X-Request-Id"] != theirs
    assert about_signed["client_request_id"] == theirs
    assert (about_signed["transaction_id"], about_signed["key"], about_signed["status"]) == ("TXN-000001", ALIAS, 200)
    assert about_signed["audit_id"] == signed.json()["signature"]["audit_id"]
    assert {"admission_s", "ledger_s", "pool_wait_s", "hsm_sign_s", "verify_s", "audit_s", "total_s"} <= set(
        about_signed
    )
    assert (about_refused["request_id"], about_refused["code"]) == (
        refused.json()["request_id"],
        "transaction_conflict",
    )
    assert (unknown.status_code, about_unknown["code"], about_unknown["key"]) == (404, "unknown_key", None)


def test_the_core_never_runs_on_the_event_loop() -> None:
    """The HSM is only ever called on the entrance's own threads."""
    with running() as entrance:
        entrance.sign()
        assert all(name.startswith("http-signing") for name in entrance.key_ring.threads)
        assert entrance.key_ring.threads


@pytest.mark.parametrize("accept", ["application/jwk+json", "text/html, application/json;q=0.9"])
def test_a_public_key_comes_as_jwk_to_whoever_asks_for_json(accept: str) -> None:
    """The JWK is the key, named by its fingerprint."""
    with running() as entrance:
        response = entrance.client.get(f"/v1/keys/{ALIAS}/public-key", headers={"Accept": accept})
    jwk = response.json()
    assert (response.headers["content-type"], response.headers["vary"]) == ("application/jwk+json", "Accept")
    public_numbers = RSAPublicNumbers(_uint(jwk["e"]), _uint(jwk["n"]))
    assert public_numbers == private_key(ALIAS).public_key().public_numbers()
    assert (jwk["kty"], jwk["use"], jwk["kid"]) == ("RSA", "sig", fingerprint(private_key(ALIAS).public_key()))


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("RSASSA_PKCS1_V1_5_SHA_256", []),
        ("RSASSA_PSS_SHA_256", ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"]),
    ],
)
def test_openssl_verifies_with_the_pem_of_the_api(tmp_path: Path, algorithm: str, options: list[str]) -> None:
    """A client needs nothing of ours to check a signature."""
    with running() as entrance:
        pem = entrance.client.get(f"/v1/keys/{ALIAS}/public-key")
        answer: Any = entrance.sign(algorithm=algorithm).json()
    assert pem.headers["content-type"] == "application/x-pem-file"
    key, signature, content = (tmp_path / name for name in ("public.pem", "signature.bin", "content.json"))
    key.write_bytes(pem.content)
    signature.write_bytes(base64.b64decode(answer["signature"]["value"]))
    content.write_bytes(CANONICAL_MESSAGE)
    command = ["openssl", "dgst", "-sha256", "-verify", str(key), *options, "-signature", str(signature), str(content)]
    assert subprocess.run(command, check=True, capture_output=True, timeout=30).stdout == b"Verified OK\n"
    content.write_bytes(CANONICAL_MESSAGE + b" ")
    assert subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 1


def test_many_clients_at_once_are_all_served() -> None:
    """Every one of 200 concurrent requests over 16 connections gets a signature of its own that verifies."""

    def ask(entrance: Entrance, number: int) -> Any:
        return entrance.sign(transaction_id=f"TXN-{number}", message={"number": number}).json()

    with running() as entrance, ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda number: ask(entrance, number), range(200)))
        eventually(lambda: entrance.sample("signer_http_in_flight") == 0.0)
    assert all(is_valid(answer, b'{"number":%d}' % number) for number, answer in enumerate(answers))


def _uint(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
