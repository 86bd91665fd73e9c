"""What is not right is refused at start, with a message and an exit status; what fails while it runs is survived."""

import json
import resource
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import httpx
import pytest

from signer.demo.stack import Stack
from tests.service.running import ready, running, sign, until

CONFIGURATION = 78


def run(stack: Stack, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end, with some settings changed."""
    return subprocess.run(
        [sys.executable, "-m", "signer", *arguments, "--config", str(stack.config)],
        env={**stack.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "value", "code", "said"),
    [
        ("SIGNER_KEYS__SETTLEMENT__LABEL", "elsewhere", "key_refused", "found no private keys with this label"),
        ("SIGNER_KEYS__SETTLEMENT__FINGERPRINT", "sha256:" + "0" * 64, "key_refused", "found fingerprint sha256:"),
        ("SIGNER_HSM__TOKEN", "elsewhere", "hsm_configuration", "no token with the label elsewhere"),
        ("SIGNER_HSM__MODULE", "/absent.so", "hsm_configuration", "no PKCS#11 module at /absent.so"),
        ("SIGNER_HSM__PIN_FILE", "/absent", "configuration", "/absent cannot be read"),
        ("SIGNER_HTTP__HOST", "0.0.0.0", "configuration", "loopback"),  # noqa: S104 - it must be refused
        ("SIGNER_SQS__WAIT_S", "soon", "configuration", "sqs.wait_s"),
    ],
)
def test_a_wrong_setting_ends_the_start(stack: Stack, name: str, value: str, code: str, said: str) -> None:
    """Exit status 78, and one line that names the code and what was found."""
    done = run(stack, "serve", **{name: value})
    assert done.returncode == CONFIGURATION
    assert done.stderr.startswith(f"{code}: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_wrong_pin_ends_the_start_and_is_not_shown(stack: Stack) -> None:
    """The refusal is final, and the PIN is in no output."""
    wrong = stack.directory / "wrong-pin"
    wrong.write_text("signer-dev:canary-wrong-pin")
    wrong.chmod(0o600)
    done = run(stack, "serve", SIGNER_HSM__PIN_FILE=str(wrong))
    assert done.returncode == CONFIGURATION
    assert done.stderr.startswith("login_refused: C_Login failed: CKR_PIN_INCORRECT")
    assert "canary" not in done.stdout + done.stderr


def test_a_second_process_on_the_same_files_is_refused(stack: Stack) -> None:
    """One audit chain and one ledger have one writer; the first one is not disturbed."""
    with running(stack) as first:
        done = run(stack, "serve", SIGNER_HTTP__PORT="0")
        assert done.returncode == CONFIGURATION
        assert done.stderr.startswith("already_running: ")
        assert httpx.get(f"{stack.http_url}/readyz").status_code == 200
        assert first.terminate() == 0


def test_a_port_that_is_taken_is_named(stack: Stack) -> None:
    """The address is in the message."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(stack, "serve", SIGNER_HTTP__PORT=port)
    assert done.returncode == CONFIGURATION
    assert port in done.stderr


def test_check_names_what_is_wrong_and_how_to_mend_it(stack: Stack) -> None:
    """All is well as it is; with a wrong key and an absent queue, exactly those two fail, each with a fix."""
    assert run(stack, "check").returncode == 0
    changes = {
        "SIGNER_KEYS__SETTLEMENT__LABEL": "elsewhere",
        "SIGNER_SQS__OUTBOUND_URL": stack.queues["outbound"] + "-absent",
    }
    done = run(stack, "check", "--output", "json", **changes)
    failed = {row["subject"]: row["fix"] for row in json.loads(done.stdout) if row["status"] != "ok"}
    assert done.returncode == 1
    assert set(failed) == {"key settlement", "outbound queue"}
    assert all(failed.values())


def test_attest_shows_the_evidence_and_says_by_its_status_whether_it_is_good(stack: Stack) -> None:
    """As JSON for the auditor and as a table; with a fingerprint that is another key's, the deviation and status 1."""
    done = run(stack, "keys", "attest", "--output", "json")
    (shown,) = json.loads(done.stdout)
    assert (done.returncode, shown["alias"], shown["compliant"]) == (0, "settlement", True)
    assert all(finding["ok"] for finding in shown["findings"])
    table = run(stack, "keys", "attest")
    assert (table.returncode, shown["token_serial"] in table.stdout) == (0, True)
    assert {finding["subject"] for finding in shown["findings"]} <= set(table.stdout.replace("  ", "\n").split("\n"))
    wrong = run(stack, "keys", "attest", "--output", "json", SIGNER_KEYS__SETTLEMENT__FINGERPRINT="sha256:" + "0" * 64)
    (found,) = json.loads(wrong.stdout)
    assert (wrong.returncode, found["compliant"]) == (1, False)
    assert [finding["subject"] for finding in found["findings"] if not finding["ok"]] == ["fingerprint"]


def test_check_finds_a_directory_where_the_ledger_should_be(stack: Stack) -> None:
    """The service would not start on it; the fix says what belongs there."""
    done = run(stack, "check", "--output", "json", SIGNER_LEDGER__PATH=str(stack.directory))
    failed = {row["subject"]: row["fix"] for row in json.loads(done.stdout) if row["status"] != "ok"}
    assert done.returncode == 1
    assert set(failed) == {"ledger"}
    assert "ledger.path" in failed["ledger"]


def test_a_warning_stays_out_of_the_results(stack: Stack) -> None:
    """With a waiver, which is said loudly, stdout is JSON and nothing else; the warning is on stderr."""
    waived = {"SIGNER_KEYS__SETTLEMENT__WAIVE": '["local"]'}
    for command, name in (("keys", "alias"), ("check", "subject")):
        arguments = (command, "list") if command == "keys" else (command,)
        done = run(stack, *arguments, "--output", "json", **waived)
        assert done.returncode == 0, done.stderr
        assert all(row[name] for row in json.loads(done.stdout))
        if command == "keys":
            assert "waive" in done.stderr


HASH = "ab" * 32


def verify_audit(stack: Stack, *anchors: str) -> subprocess.CompletedProcess[str]:
    """Run `signer audit verify` with anchors."""
    arguments = [argument for anchor in anchors for argument in ("--anchor", anchor)]
    command = [sys.executable, "-m", "signer", "audit", "verify", str(stack.directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "anchor",
    [
        f"0:{HASH}", f"-1:{HASH}", f"{'9' * 17}:{HASH}", f"{'9' * 5000}:{HASH}", f"\u0661:{HASH}",
        "1:", "1:ab", f"1:{HASH}0", f"1:{'xy' * 32}", f"1:{HASH}\n", HASH,
    ],
)  # fmt: skip
def test_a_malformed_anchor_is_refused(stack: Stack, anchor: str) -> None:
    """One that can never be in a chain is a mistake of whoever wrote it, not a broken chain."""
    done = verify_audit(stack, anchor)
    assert done.returncode == 65
    assert done.stderr.startswith("invalid_input: an anchor has the shape SEQ:HASH")


def test_anchors_are_taken_in_either_case_and_must_agree(stack: Stack) -> None:
    """A hash in capitals is the same hash; two hashes for one record cannot both be meant."""
    assert verify_audit(stack, f"1:{HASH.upper()}", f"1:{HASH}").returncode == 1
    assert verify_audit(stack, f"1:{HASH}", f"1:{'cd' * 32}").returncode == 65


def test_a_full_disk_releases_nothing_and_heals(stack: Stack) -> None:
    """With no byte to write, a request gets 503 and no signature, the service is not ready; with space it is again."""
    stack.environment["SIGNER_READINESS_INTERVAL_S"] = "0.5"
    with running(stack) as service:
        assert sign(stack, "BEFORE").status_code == 200
        unlimited = resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        refused = sign(stack, "DURING")
        assert refused.status_code == 503
        assert "signature" not in refused.json()
        until(lambda: not ready(stack), "not ready")
        assert httpx.get(f"{stack.http_url}/livez").status_code == 200
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
        until(lambda: ready(stack), "ready again")
        assert sign(stack, "DURING").status_code == 200
        assert service.terminate() == 0
    done = subprocess.run(
        [sys.executable, "-m", "signer", "audit", "verify", str(stack.audit_directory)], check=False, timeout=60
    )
    assert done.returncode == 0


def test_a_locked_ledger_makes_it_not_ready_until_it_is_free(stack: Stack) -> None:
    """Somebody holds the ledger: readiness goes false within a probe, and comes back by itself."""
    stack.environment |= {"SIGNER_READINESS_INTERVAL_S": "0.5", "SIGNER_LEDGER__COMMIT_TIMEOUT_S": "0.5"}
    with running(stack):
        with closing(sqlite3.connect(stack.directory / "ledger.sqlite3", isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")
            # A probe that is late on a busy machine is a reason, too, and passes.
            until(lambda: "ledger" in httpx.get(f"{stack.http_url}/readyz").text, "not ready because of the ledger")
            assert not ready(stack)
            holder.execute("ROLLBACK")
        until(lambda: ready(stack), "ready again")
        assert sign(stack, "AFTER").status_code == 200


def test_a_batch_waits_while_the_service_cannot_sign(stack: Stack) -> None:
    """While the service is not ready it does not poll: a batch gains no receive count, and is signed afterwards."""
    stack.environment["SIGNER_READINESS_INTERVAL_S"] = "0.5"
    with running(stack) as service:
        unlimited = resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        until(lambda: not ready(stack), "not ready")
        time.sleep(1.5)  # the poll that was under way when readiness went may still bring a message
        batch = {
            "schema": "settlement-batch/1",
            "batch_id": "WAITS",
            "key": "settlement",
            "transactions": [{"transaction_id": "WAITS-1", "message": {"amount": "1.00"}}],
        }
        stack.sqs.send_message(QueueUrl=stack.queues["inbound"], MessageBody=json.dumps(batch))
        time.sleep(3.0)
        metrics = httpx.get(f"{stack.http_url}/metrics").text
        assert 'signer_batches_total{event="received"}' not in metrics
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
        answer = stack.sqs.receive_message(QueueUrl=stack.queues["outbound"], WaitTimeSeconds=20)
        assert json.loads(answer["Messages"][0]["Body"])["batch_id"] == "WAITS"
