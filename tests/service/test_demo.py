"""The demo holds, and what it leaves behind convinces people who do not have our code."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Demo


def test_the_demo_holds_and_leaves_its_evidence(demo: Demo) -> None:
    """Exit status 0, and the three things it promises are there."""
    directory, done = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"signed-batch.json", "public-key.pem", "audit"} <= {path.name for path in directory.iterdir()}


def openssl_accepts(directory: Path, transaction: dict[str, Any], content: bytes, key: Path) -> bool:
    """Ask `openssl` whether the signature is over exactly `content`."""
    signature, message = directory / "signature", directory / "content"
    signature.write_bytes(base64.b64decode(transaction["signature"]["value"]))
    message.write_bytes(content)
    command = ["openssl", "dgst", "-sha256", "-verify", str(key), "-signature", str(signature), str(message)]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def content_of(transaction: dict[str, Any]) -> bytes:
    """What is signed: the payload's bytes, or the message as RFC 8785 has it (plain keys and strings: sorted JSON)."""
    if "payload" in transaction:
        return base64.b64decode(transaction["payload"])
    return json.dumps(transaction["message"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_openssl_verifies_what_the_demo_signed(demo: Demo, tmp_path: Path) -> None:
    """`openssl` accepts three payloads and three messages of the signed batch, and refuses each with one byte more."""
    directory, _ = demo
    transactions = json.loads((directory / "signed-batch.json").read_text())["transactions"]
    payloads = [item for item in transactions if "payload" in item]
    messages = [item for item in transactions if "message" in item]
    assert len(transactions) >= 25
    for transaction in payloads[:3] + messages[:3]:
        content = content_of(transaction)
        assert openssl_accepts(tmp_path, transaction, content, directory / "public-key.pem")
        assert not openssl_accepts(tmp_path, transaction, content + b" ", directory / "public-key.pem")
    assert len(payloads) >= 3


def test_no_secret_lies_about(demo: Demo) -> None:
    """The PIN is in its own file and in no log, output, audit record or setting; no log holds a creditor's account."""
    directory, done = demo
    pin = (directory / "token" / "pin").read_text().strip()
    password = pin.partition(":")[2]
    texts = [path.read_text(errors="replace") for path in directory.glob("*.*") if path.suffix != ".json"]
    texts += [path.read_text() for path in (directory / "audit").iterdir() if path.is_file()]
    assert len(password) > 16
    for text in [*texts, done.stdout, done.stderr]:
        assert password not in text
        assert "DE89370400440532013000" not in text


def test_the_audit_log_says_what_signed(demo: Demo) -> None:
    """Each signature's audit id leads to a record with time, caller, key, handle, session, Crypto User and digests."""
    directory, _ = demo
    batch = json.loads((directory / "signed-batch.json").read_text())
    lines = [line for file in sorted((directory / "audit").glob("*.jsonl")) for line in file.read_text().splitlines()]
    records = {record["audit_id"]: record for record in map(json.loads, lines)}
    for transaction in batch["transactions"]:
        signature = transaction["signature"]
        record = records[signature["audit_id"]]
        assert (record["operation"], record["outcome"]) == ("sign", "signed")
        assert record["transaction_id"] == transaction["transaction_id"]
        assert record["batch_id"] == batch["batch_id"]
        assert record["key_fingerprint"] == signature["key_fingerprint"]
        assert record["digest"] == "sha256:" + base64.b64decode(signature["digest"]).hex()
        assert record["mechanism"] == "CKM_RSA_PKCS"
        assert record["crypto_user"] == "signer-dev"
        assert record["entrance"] == "sqs"
        wanted = {"time", "seq", "prev", "caller", "channel", "message_id", "key_alias", "key_label", "key_handle"}
        assert wanted | {"token_serial", "session_handle", "signature_sha256", "duration_s"} <= set(record)


def start_demo(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the demo in `directory`."""
    command = [sys.executable, "-m", "signer", "demo", "--dir", str(directory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children_of(pid: int) -> list[int]:
    """Give the processes that `pid` started and that have not ended."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_the_demo_empties_only_what_it_made(tmp_path: Path, kind: str) -> None:
    """A directory with something of somebody else's, a file and a link are refused and left as they are."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    target = {"full": tmp_path / "precious", "file": tmp_path / "precious" / "file", "link": tmp_path / "link"}[kind]
    demo = start_demo(target)
    said, _ = demo.communicate(timeout=60)
    assert (demo.returncode, said.startswith("configuration: ")) == (78, True), said
    assert (tmp_path / "precious" / "file").read_text() == "precious"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("moment", ["emulator.log", "serve.log", "signed-batch.json"])
def test_sigterm_ends_the_demo_and_its_children(tmp_path: Path, moment: str) -> None:
    """While it starts and while it runs, nothing it started is left; and it may empty what it leaves."""
    for directory in (tmp_path / "demo", tmp_path / "demo"):
        (directory / moment).unlink(missing_ok=True)
        demo = start_demo(directory, "--keep")
        until_s = time.monotonic() + 60
        # A child's log is there before the child is.
        while not ((directory / moment).exists() and children_of(demo.pid)):
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.02)
        children = children_of(demo.pid)
        assert children
        demo.send_signal(signal.SIGTERM)
        said, _ = demo.communicate(timeout=60)
        assert "Traceback" not in said
        left = [child for child in children if Path(f"/proc/{child}").exists()]
        for child in left:
            os.kill(child, signal.SIGKILL)
        assert not left
