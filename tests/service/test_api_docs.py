"""The commands of docs/api.md, one after another as the page says, and what they are answered."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from signer.demo.stack import Emulator, Token
from tests.issuer import bound_to
from tests.service.entrance import People, site

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def said(tmp_path: Path, emulator: Emulator, service_token: Token, softhsm_module: Path) -> str:
    """What all of them print, in one shell."""
    people = People()
    people.honest.write(tmp_path, "client")
    people.auditor.write(tmp_path, "auditor")
    (tmp_path / "ca.pem").write_bytes(people.root.pem)
    with site(tmp_path / "site", emulator, service_token, softhsm_module, people) as service:
        variables = {
            "PATH": os.environ["PATH"],
            "SIGNER": f"https://localhost:{service.port}",
            "TOKEN": service.issuer.token(cnf=bound_to(people.honest)),
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\necho\n".join(COMMANDS)],
            cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_is_true(said: str) -> None:
    """Each of its commands is answered as the page says."""
    lines = said.splitlines()
    answers = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    of_the_token, first, dry, batch, verdict, *_, found, by_digest = answers
    assert [key["alias"] for key in of_the_token["keys"]] == ["settlement", "killed"]
    assert first["signature"]["key_alias"] == "settlement"
    assert any(line.lower().startswith("idempotency-replayed: true") for line in lines)
    assert dry["dry_run"]["outcome"] == "signed"
    assert [item["reference"] for item in batch["results"]] == ["row-1", "row-2"]
    assert verdict["valid"] is True
    assert "-----BEGIN PUBLIC KEY-----" in said
    assert '"kty":"RSA"' in said
    assert [signature["transaction_id"] for signature in found["signatures"]] == ["TXN-000001"]
    assert [signature["transaction_id"] for signature in by_digest["signatures"]] == ["TXN-000003"]


def test_every_endpoint_is_on_the_page() -> None:
    """Of those for callers."""
    for path in ("sign", "sign-batch", "verify", "signatures", "keys"):
        assert f"/v1/{path}" in "".join(COMMANDS)
    assert "/.well-known/jwks.json" in "".join(COMMANDS)
