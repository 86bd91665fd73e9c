"""A PIN, payloads and tokens go in; none of them comes out anywhere: not in a log, an error, a metric or a record."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from signer.demo.stack import Emulator, Token
from tests.canaries import everything_said, found_in, may_dump_core, pin_in, processes_of, spellings, written
from tests.issuer import bound_to
from tests.service.endpoints import BATCH, DRY_RUN, ENDPOINTS, KEYS, SEARCH, VERIFY
from tests.service.entrance import PAYLOAD, People, Site, leaf, site
from tests.service.running import logged, until
from tests.service.ways_in import WAYS

BATCH_PAYLOAD = "canary-batch-0815"
IDEMPOTENCY_KEY = "canary-idempotency-1234"
BINARY_PAYLOAD = "canary-binary-2345"
DIGEST = hashlib.sha256(b"canary-digest-3456").digest()
"""Of nothing that is sent: allowed where digests are kept and answered, and nowhere else."""
TRANSACTION_ID = "canary-transaction-4567"
IN_BASE64 = base64.b64encode(BINARY_PAYLOAD.encode()).decode()


@pytest.fixture
def service(tmp_path: Path, emulator: Emulator, service_token: Token, softhsm_module: Path) -> Iterator[Site]:
    optional = {"SIGNER_HTTP__TLS__CLIENT_CERTIFICATE": "optional", "SIGNER_LOG_LEVEL": "DEBUG"}
    with site(tmp_path / "site", emulator, service_token, softhsm_module, People(), **optional) as running:
        yield running


def said_by(service: Site) -> dict[str, bytes]:
    """All that the process has let out, by where."""
    return everything_said(service.directory, service.stack.http_url, service.heard)


def secrets_of(service: Site, pin: str) -> set[str]:
    """The PIN, what was to be signed, and of each token the claims and the signature."""
    tokens = [value.partition(" ")[2].split(".") for value in service.sent]
    parts = {part for token in tokens for part in token[1:] if len(part) > 20}
    assert len(parts) > 50
    # The second line holds most of the private number; the client's keys lie beside the server's.
    lines = {file.read_text(encoding="ascii").splitlines()[2] for file in service.directory.glob("*.key")}
    assert len(lines) > 1
    return {pin, PAYLOAD, BATCH_PAYLOAD, BINARY_PAYLOAD, IDEMPOTENCY_KEY, *parts, *lines}


def send_batch(service: Site, key: str) -> None:
    """Put a batch in the queue."""
    batch = {"schema": "settlement-batch/1", "batch_id": f"B-{key}", "key": key,
             "transactions": [{"transaction_id": "T-1", "message": {"amount": BATCH_PAYLOAD}}]}  # fmt: skip
    service.stack.sqs.send_message(QueueUrl=service.stack.queues["inbound"], MessageBody=json.dumps(batch))


def ask_for_everything(service: Site) -> None:
    """Every way in that fails, and the ones that do not; trouble in the HSM; batches, signed and refused."""
    people, issuer = service.people, service.issuer
    for way in [*WAYS, *ENDPOINTS]:
        if not way.required:
            way.go(service)
    assert service.ask(people.honest, transaction_id="A").status == 200
    assert service.bearer(issuer.token(cnf=bound_to(people.honest)), people.honest, transaction_id="B").status == 200
    assert service.ask(None, [leaf(people.honest)], source="127.0.0.7", transaction_id="C").status == 200
    idempotent = [("Idempotency-Key", IDEMPOTENCY_KEY)]
    assert service.ask(people.honest, idempotent, transaction_id="E", message=None, payload=IN_BASE64).status == 200
    for endpoint in (DRY_RUN, BATCH, VERIFY, KEYS):
        assert endpoint.ask(service, people.honest).status == 200
    assert SEARCH.ask(service, people.auditor).status == 200
    assert service.ask(people.honest, [("Content-Encoding", "gzip")], transaction_id="F").status == 415
    assert service.ask(people.honest, transaction_id={"amount": PAYLOAD}).status == 400
    strange: dict[str, Any] = {PAYLOAD: PAYLOAD}
    assert service.ask(people.honest, **strange).status == 400
    by_digest: dict[str, Any] = {"message": None, "digest": base64.b64encode(DIGEST).decode()}
    assert service.ask(people.honest, transaction_id=TRANSACTION_ID, **by_digest).status == 200
    with service.shim.fail("C_Sign", "CKR_FUNCTION_FAILED"):
        assert service.bearer(issuer.token(), transaction_id="D").status in {503, 504}
    for key in ("settlement", "fees"):
        send_batch(service, key)
    ended = {("sign", "signed", "B-settlement"), ("quarantine", "refused", "B-fees")}
    until(lambda: ended <= batches(service), "a signed batch and one in quarantine")


def batches(service: Site) -> set[tuple[str, str, str]]:
    """What was done with batches of the queue."""
    records = [record for record in service.records() if "batch_id" in record]
    return {(record["operation"], record["outcome"], record["batch_id"]) for record in records}


def places_of_digest(said: dict[str, bytes]) -> set[str]:
    """Where it stands, in any of its spellings."""
    spelt = (DIGEST, DIGEST.hex().encode(), base64.b64encode(DIGEST))
    holding = {name for name, content in said.items() if any(spelling in content for spelling in spelt)}
    return {name.partition("/")[0].removesuffix("-wal") for name in holding}


def test_each_place_is_searched(service: Site) -> None:
    """What does stand in each is found there, by the same search."""
    service.ask(service.people.honest, transaction_id=TRANSACTION_ID)
    service.ask()
    until(lambda: bool(logged(service.stack, "authentication.refused")), "the log")
    standing = {
        "serve.log": "authentication.refused",
        "metrics": "signer_http_refused_credentials_total",
        "readiness": "ready",
        "answers": "credentials_missing",
        "arguments": str(service.stack.config),
        "environment": str(service.directory / "policy.toml"),
    }
    found = found_in(said_by(service), {TRANSACTION_ID, *standing.values()})
    assert {(value, where) for where, value in standing.items()} <= found
    assert any(value == TRANSACTION_ID and where.startswith("audit/") for value, where in found)
    assert any(value == TRANSACTION_ID and where.startswith("ledger.sqlite3") for value, where in found)


def test_what_is_said_at_a_violent_end_holds_none(
    tmp_path: Path, emulator: Emulator, service_token: Token, softhsm_module: Path
) -> None:
    """The HSM hangs, with all of it in memory; the process ends itself, and writes down where each thread stood."""
    impatient = {"SIGNER_HSM__CALL_TIMEOUT_S": "1", "SIGNER_READINESS_INTERVAL_S": "1", "SIGNER_LOG_LEVEL": "DEBUG"}
    pin = pin_in(service_token.pin_file)
    with site(tmp_path / "site", emulator, service_token, softhsm_module, People(), **impatient) as service:
        honest = service.people.honest
        token = service.issuer.token(cnf=bound_to(honest))
        with service.shim.hang("C_Sign"):
            for number in range(2):
                service.bearer(token, honest, transaction_id=f"H-{number}")
            send_batch(service, "settlement")
            assert service.process.wait(60) == 86
        said = {**written(service.directory), "answers": b"\n".join(service.heard)}
    assert b"Current thread 0x" in said["serve.log"]
    assert found_in(said, {pin, PAYLOAD, BATCH_PAYLOAD, *token.split(".")[1:]}) == set()


def test_no_secret_comes_out(service: Site, service_token: Token) -> None:
    """Nor could it in a core file: there is none."""
    pin = pin_in(service_token.pin_file)
    assert len(pin) > 20
    ask_for_everything(service)
    until(lambda: bool(logged(service.stack, "authentication.refused")), "the log")
    said = said_by(service)
    assert {"serve.log", "metrics", "answers"} <= said.keys()
    assert any(name.startswith("audit/") and content for name, content in said.items())
    assert b"token_signature_invalid" in said["serve.log"]  # what is there is found
    secrets = secrets_of(service, pin)
    assert found_in(said, secrets) == set()
    assert places_of_digest(said) == {"ledger.sqlite3", "audit", "answers"}
    # Whatever it was that came out, and wherever: it is found.
    for secret in secrets:
        for spelling in spellings(secret):
            assert found_in({"a log": b"before " + spelling + b" after"}, {secret}) == {(secret, "a log")}
    assert processes_of(service.directory) == [service.process.pid]
    assert not may_dump_core(service.process.pid)
