"""A PIN, payloads and tokens go in; none of them comes out anywhere: not in a log, an error, a metric or a record."""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from signer.demo.stack import Emulator, Token
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


def written(service: Site) -> dict[str, bytes]:
    """Every file that the process has written, and those that it was given but for its keys and certificates."""
    kept = [path for path in service.directory.rglob("*") if path.is_file() and path.suffix not in {".pem", ".key"}]
    return {str(path.relative_to(service.directory)): path.read_bytes() for path in kept}


def everything_said(service: Site) -> dict[str, bytes]:
    """All that the process has let out, by where."""
    return {
        **written(service),
        "metrics": httpx.get(f"{service.stack.http_url}/metrics").content,
        "readiness": httpx.get(f"{service.stack.http_url}/readyz").content,
        "answers": b"\n".join(service.heard),
        "arguments": b"\n".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(os.getpid())),
        "environment": Path(f"/proc/{service.process.pid}/environ").read_bytes(),
    }


def descendants(pid: int) -> list[int]:
    """Every process that one has started, and those that these have."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for each in lists for child in each.read_text(encoding="ascii").split()]
    return [*children, *(one for child in children for one in descendants(child))]


def spellings(secret: str) -> set[bytes]:
    """How a secret might look where it got out; base64 is looked for in each of its three alignments."""
    raw = secret.encode()
    aligned = (base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3))
    return {raw, quote(secret, safe="").encode(), raw.hex().encode(), *aligned}


def found_in(said: dict[str, bytes], secrets: set[str]) -> set[tuple[str, str]]:
    """Which secret came out where."""
    return {
        (secret[:12], where)
        for secret in secrets
        for spelling in spellings(secret)
        for where, content in said.items()
        if spelling in content
    }


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
    found = found_in(everything_said(service), {TRANSACTION_ID, *standing.values()})
    assert {(value[:12], where) for where, value in standing.items()} <= found
    assert any(value == TRANSACTION_ID[:12] and where.startswith("audit/") for value, where in found)
    assert any(value == TRANSACTION_ID[:12] and where.startswith("ledger.sqlite3") for value, where in found)


def test_what_is_said_at_a_violent_end_holds_none(
    tmp_path: Path, emulator: Emulator, service_token: Token, softhsm_module: Path
) -> None:
    """The HSM hangs, with all of it in memory; the process ends itself, and writes down where each thread stood."""
    impatient = {"SIGNER_HSM__CALL_TIMEOUT_S": "1", "SIGNER_READINESS_INTERVAL_S": "1", "SIGNER_LOG_LEVEL": "DEBUG"}
    pin = service_token.pin_file.read_text(encoding="utf-8").strip().rpartition(":")[2]
    with site(tmp_path / "site", emulator, service_token, softhsm_module, People(), **impatient) as service:
        honest = service.people.honest
        token = service.issuer.token(cnf=bound_to(honest))
        with service.shim.hang("C_Sign"):
            for number in range(2):
                service.bearer(token, honest, transaction_id=f"H-{number}")
            send_batch(service, "settlement")
            assert service.process.wait(60) == 86
        said = {**written(service), "answers": b"\n".join(service.heard)}
    assert b"Current thread 0x" in said["serve.log"]
    assert found_in(said, {pin, PAYLOAD, BATCH_PAYLOAD, *token.split(".")[1:]}) == set()


def test_no_secret_comes_out(service: Site, service_token: Token) -> None:
    """Nor could it in a core file: there is none."""
    # The user's name before it is no secret, and the rest is one without it, too.
    pin = service_token.pin_file.read_text(encoding="utf-8").strip().rpartition(":")[2]
    assert len(pin) > 20
    ask_for_everything(service)
    until(lambda: bool(logged(service.stack, "authentication.refused")), "the log")
    said = everything_said(service)
    assert {"serve.log", "metrics", "answers"} <= said.keys()
    assert any(name.startswith("audit/") and content for name, content in said.items())
    assert b"token_signature_invalid" in said["serve.log"]  # what is there is found
    secrets = secrets_of(service, pin)
    assert found_in(said, secrets) == set()
    assert places_of_digest(said) == {"ledger.sqlite3", "audit", "answers"}
    # Whatever it was that came out, and wherever: it is found.
    for secret in secrets:
        for spelling in spellings(secret):
            assert found_in({"a log": b"before " + spelling + b" after"}, {secret}) == {(secret[:12], "a log")}
    limits = Path(f"/proc/{service.process.pid}/limits").read_text(encoding="ascii")
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
