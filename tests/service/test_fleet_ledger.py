"""A fleet: service processes with a table in common, each with an audit log of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from signer.demo.stack import Emulator, Stack, Token
from tests.service.running import audit_records, running, sign


@pytest.fixture
def table(emulator: Emulator) -> str:
    return emulator.create_table(f"ledger-{uuid4().hex}")


def member(directory: Path, emulator: Emulator, token: Token, table: str) -> Stack:
    """Settings of one process of the fleet."""
    directory.mkdir()
    stack = Stack(directory, emulator, token)
    on_disk = f'path = "{directory}/ledger.sqlite3"'
    text = stack.config.read_text(encoding="utf-8")
    assert on_disk in text
    in_table = f'backend = "dynamodb"\ntable = "{table}"\nendpoint_url = "{emulator.url}"'
    stack.config.write_text(text.replace(on_disk, in_table), encoding="utf-8")
    return stack


def check(stack: Stack, **environment: str) -> dict[str, Any]:
    """Run `signer check`, and give what failed."""
    command = [sys.executable, "-m", "signer", "check", "--output", "json", "--config", str(stack.config)]
    done = subprocess.run(
        command, env={**stack.environment, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    failed = {row["subject"]: row for row in json.loads(done.stdout) if row["status"] != "ok"}
    assert done.returncode == bool(failed)
    return failed


def test_a_fleet_signs_each_transaction_once(
    tmp_path: Path, emulator: Emulator, service_token: Token, table: str
) -> None:
    """What one has signed, another gives again, byte for byte; other content is a conflict wherever it comes in."""
    one, two = (member(tmp_path / name, emulator, service_token, table) for name in ("one", "two"))
    with running(one):
        first = sign(one, "T")
        assert first.status_code == 200
        # A new audit log beside a table in use: the next task of a fleet always begins one.
        with running(two):
            again = sign(two, "T")
            assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
            assert sign(two, "T", "2.00").status_code == 409
            assert sign(two, "U").status_code == 200
        assert sign(one, "U", "2.00").status_code == 409
    began = [record["detail"] for record in audit_records(two) if record["operation"] == "store.begin"]
    assert began == ["new: audit log"]


def test_check_names_what_is_wrong_with_the_table(
    tmp_path: Path, emulator: Emulator, service_token: Token, table: str
) -> None:
    """All is well as documented; a table without TTL, or none at all, fails with its fix."""
    stack = member(tmp_path / "one", emulator, service_token, table)
    assert check(stack) == {}
    emulator.dynamodb.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": False, "AttributeName": "expires_at"}
    )
    failed = check(stack)
    assert set(failed) == {"ledger TTL"}
    assert "expires_at" in failed["ledger TTL"]["fix"]
    failed = check(stack, SIGNER_LEDGER__TABLE=f"{table}-absent")
    assert set(failed) == {"ledger"}
    assert "does not exist" in failed["ledger"]["found"]
    assert "docs/ledger.md" in failed["ledger"]["fix"]
