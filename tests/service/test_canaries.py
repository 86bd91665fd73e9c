"""A PIN, payloads and tokens go in; none of them comes out anywhere: not in a log, an error, a metric or a record."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
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
IN_BASE64 = base64.b64encode(BINARY_PAYLOAD.encode()).decode()


@pytest.fixture
def service(tmp_path: Path, emulator: Emulator, service_token: Token, softhsm_module: Path) -> Iterator[Site]:
    optional = {"SIGNER_HTTP__TLS__CLIENT_CERTIFICATE": "optional", "SIGNER_LOG_LEVEL": "DEBUG"}
    with site(tmp_path / "site", emulator, service_token, softhsm_module, People(), **optional) as running:
        yield running


def everything_said(service: Site) -> dict[str, bytes]:
    """All that the process has let out, by where."""
    process = Path(f"/proc/{service.process.pid}")
    kept = [path for path in service.directory.rglob("*") if path.is_file() and path.suffix not in {".pem", ".key"}]
    return {
        **{str(path.relative_to(service.directory)): path.read_bytes() for path in kept},
        "metrics": httpx.get(f"{service.stack.http_url}/metrics").content,
        "readiness": httpx.get(f"{service.stack.http_url}/readyz").content,
        "answers": b"\n".join(service.heard),
        "arguments": process.joinpath("cmdline").read_bytes(),
        "environment": process.joinpath("environ").read_bytes(),
    }


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
    return {pin, PAYLOAD, BATCH_PAYLOAD, BINARY_PAYLOAD, IDEMPOTENCY_KEY, *parts}


def ask_for_everything(service: Site) -> None:
    """Every way in that fails, and the ones that do not; trouble in the HSM; a batch that is refused."""
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
    with service.shim.fail("C_Sign", "CKR_FUNCTION_FAILED"):
        assert service.bearer(issuer.token(), transaction_id="D").status in {503, 504}
    batch = {"schema": "settlement-batch/1", "batch_id": "B-1", "key": "settlement",
             "transactions": [{"transaction_id": "T-1", "message": {"amount": BATCH_PAYLOAD}}]}  # fmt: skip
    service.stack.sqs.send_message(QueueUrl=service.stack.queues["inbound"], MessageBody=json.dumps(batch))
    until(lambda: any(record["operation"] == "quarantine" for record in service.records()), "a quarantined batch")


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
    # Whatever it was that came out, and wherever: it is found.
    for secret in secrets:
        for spelling in spellings(secret):
            assert found_in({"a log": b"before " + spelling + b" after"}, {secret}) == {(secret[:12], "a log")}
    limits = Path(f"/proc/{service.process.pid}/limits").read_text(encoding="ascii")
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
