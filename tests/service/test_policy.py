"""The policy file as operators live with it: changed under load, wrong at times, and kept to at both entrances."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from signer.demo.stack import Emulator, Token
from signer.sqs.quarantine import ATTRIBUTE
from softhsm.shim.client import LIBRARY, Shim
from tests.conftest import Preset
from tests.service.batches import Downstream, make_batches, send
from tests.service.governed import HTTP, Governed, all_running, caller, governed, queue_of, signer_policy
from tests.service.running import PATIENCE_S, until
from tests.unit.policies import POLICY

PKCS1, PSS = "RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"


@pytest.fixture
def service(tmp_path: Path, emulator: Emulator, service_token: Token) -> Governed:
    """One service; the policy is for the test to write."""
    return governed(tmp_path / "one", emulator, service_token, tmp_path / "policy.toml")


@contextmanager
def shimmed(service: Governed, module: Path, preset: Preset, directory: Path) -> Iterator[Shim]:
    """Run the service over the shim, which counts what reaches the HSM; its probes sign too, so there are none."""
    shim = Shim(directory)
    service.stack.environment |= shim.environment(module, preset, latency=False)
    service.stack.environment |= {"SIGNER_HSM__MODULE": str(LIBRARY), "SIGNER_READINESS_INTERVAL_S": "3600"}
    with all_running(service):
        yield shim


def test_it_is_changed_under_load(service: Governed) -> None:
    """Ten times, with a bad file at the end: every request is answered by a good one, each change is recorded."""
    service.write(caller(HTTP, limits="max_batch = 100"))
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not stop.is_set():
                number = f"{threading.get_ident()}-{len(answers)}"
                body = {"key": "settlement", "transaction_id": number, "message": {"amount": "1.00"}}
                answers.append(client.post(f"{service.stack.http_url}/v1/sign", json=body).status_code)

    with all_running(service):
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 11):
            service.write(caller(HTTP, limits=f"max_batch = {100 + number}"), caller(f"dns:{number}.bank.example"))
            service.wait_for("policy.changed", number)
        service.file.write_text('schema = "signer-policy/1"\n[[callers]]\nname = "x"\nmax_batch = 0\n')
        refused = service.wait_for("policy.refused")
        enough = len(answers) + 50
        until(lambda: len(answers) >= enough, "answers under the last good policy")
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        warnings = httpx.get(f"{service.stack.http_url}/readyz").json()["warnings"]
    assert set(answers) == {200}
    assert "callers.0.max_batch" in refused["detail"]
    assert refused["outcome"] == "refused"
    assert warnings == [refused["detail"] + "; what was in force stays so"]
    changes = [record["detail"] for record in service.recorded("policy.changed")]
    assert len(changes) == 10
    assert f"caller {HTTP}: max_batch 109 -> 110" in changes[-1]
    assert "caller dns:9.bank.example removed" in changes[-1]
    assert "caller dns:10.bank.example added: key settlement denied -> " in changes[-1]


ASKED: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "algorithm": ({"algorithms": [PKCS1]}, {"algorithm": PSS}, 403, "not_authorised"),
    "content": ({"content": ["message"]}, {"message": None, "payload": "AAAA"}, 403, "not_authorised"),
    "the other content": ({"content": ["payload"]}, {}, 403, "not_authorised"),
    "no transaction id": ({}, {"transaction_id": None}, 400, "transaction_id_required"),
    "key": ({"keys": ["payout"]}, {}, 403, "not_authorised"),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_not_granted_is_refused_over_http(
    service: Governed, softhsm_module: Path, preset: Preset, short_directory: Path, what: str
) -> None:
    """With its code, on record, and without the HSM; the same caller may do what is granted."""
    grant, changes, status, code = ASKED[what]
    service.write(caller(HTTP, **grant))
    with shimmed(service, softhsm_module, preset, short_directory) as shim:
        before = shim.counts()["C_Sign"].calls
        answer = service.ask(**changes)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        (record,) = service.recorded("sign")
        assert (record["outcome"], record["error_code"], record["caller"]) == ("refused", code, HTTP)
        assert shim.counts()["C_Sign"].calls == before
        granted = {"message": None, "payload": "AAAA"} if what == "the other content" else {}
        assert what == "key" or service.ask("T-2", **granted).status_code == 200


def test_more_than_granted_in_a_second_is_refused_over_http(
    service: Governed, softhsm_module: Path, preset: Preset, short_directory: Path
) -> None:
    """429 with the time to wait; the HSM does not see it, and what was granted came through."""
    service.write(caller(HTTP, limits="transactions_per_second = 0.01\nburst = 2"))
    with shimmed(service, softhsm_module, preset, short_directory) as shim:
        assert [service.ask(f"T-{number}").status_code for number in range(2)] == [200, 200]
        before = shim.counts()["C_Sign"].calls
        refused = service.ask("T-9")
        assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (429, "rate_limited", True)
        assert 90 <= int(refused.headers["Retry-After"]) <= 100
        assert shim.counts()["C_Sign"].calls == before
        assert service.recorded("sign")[-1]["error_code"] == "rate_limited"


IN_BATCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "algorithm": ({"algorithms": [PKCS1]}, {"algorithm": PSS}, "not_authorised"),
    "content": ({"content": ["payload"]}, {}, "not_authorised"),
    "key": ({"keys": ["payout"]}, {}, "not_authorised"),
    "batch size": ({"limits": "max_batch = 2"}, {}, "too_many_transactions"),
    "no transaction id": ({}, {"transactions": [{"message": {"amount": "1.00"}}]}, "invalid_input"),
}


@pytest.mark.parametrize("what", IN_BATCHES)
def test_what_is_not_granted_is_quarantined_over_sqs(
    service: Governed, softhsm_module: Path, preset: Preset, short_directory: Path, what: str
) -> None:
    """The queue is a caller like any other; the reason goes along, it is on record, and the HSM does not see it."""
    grant, changes, code = IN_BATCHES[what]
    service.write(caller(queue_of(service.stack), **grant))
    with shimmed(service, softhsm_module, preset, short_directory) as shim:
        before = shim.counts()["C_Sign"].calls
        send(service.stack, {"B": {**make_batches(1, 3)["BATCH-0"], "algorithm": PKCS1, **changes}})
        record = service.wait_for("quarantine")
        assert (record["error_code"], record["caller"]) == (code, queue_of(service.stack))
        assert reasons(service)["code"] == code
        assert shim.counts()["C_Sign"].calls == before


def reasons(service: Governed) -> dict[str, Any]:
    """What the one message in quarantine carries along."""
    url = service.stack.queues["quarantine"]
    (message,) = service.stack.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, MessageAttributeNames=["All"])[
        "Messages"
    ]
    return dict(json.loads(message["MessageAttributes"][ATTRIBUTE]["StringValue"]))


def test_a_queue_beyond_its_limit_waits(service: Governed) -> None:
    """Nothing is refused or set aside: batches stay in the queue until their time has come, and all come out."""
    service.write(caller(queue_of(service.stack), limits="transactions_per_second = 4\nburst = 1"))
    batches = make_batches(4, 2)
    with all_running(service):
        send(service.stack, batches)
        downstream = Downstream(service.stack)
        downstream.take_all(batches)
    times = sorted({record["time"] for record in service.recorded("sign") if record["outcome"] == "signed"})
    assert len(times) == 4
    # The first is let in by its first transaction, and each of the others waits for what the one before took.
    assert seconds_between(times[0], times[-1]) >= 1
    assert service.recorded("quarantine") == []


def seconds_between(first: str, last: str) -> float:
    """How far two records are apart."""
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


def test_check_reads_a_file_as_the_service_would(tmp_path: Path) -> None:
    """What it grants, as a table and as JSON; a bad one with its place and without its value."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    shown = signer_policy("check", str(file))
    assert (shown.returncode, "spiffe://bank.example/settlement" in shown.stdout) == (0, True)
    rows = json.loads(signer_policy("check", str(file), "--output", "json").stdout)
    assert {row["key"] for row in rows if row["caller"] == "spiffe://bank.example/settlement"} == {
        "settlement",
        "payout",
    }
    assert [row["roles"] for row in rows if row["caller"] == "dns:audit.bank.example"] == ["auditor"]
    file.write_text(POLICY.replace("burst = 4", 'burst = "canary"'))
    bad = signer_policy("check", str(file))
    assert (bad.returncode, "callers.1.burst" in bad.stderr, "canary" in bad.stderr) == (78, True, False)


def test_explain_says_what_would_happen_and_why(tmp_path: Path) -> None:
    """Status 0 for yes and 1 for no; the rule that decides, the limits, and the kill switch."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    bank = ("explain", "--caller", "spiffe://bank.example/settlement", "--policy", str(file), "--output", "json")

    def explained(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = signer_policy(*bank, *arguments)
        (row,) = json.loads(done.stdout)
        return done.returncode, row

    status, row = explained("--key", "settlement")
    assert (status, row["allowed"], row["max_batch"], row["transactions_per_second"], row["burst"]) == (
        0,
        "yes",
        3,
        2,
        4,
    )
    status, row = explained("--key", "payout")
    assert (status, row["code"]) == (1, "not_authorised")
    assert row["rule"] == "caller spiffe://bank.example/settlement, key payout: algorithms"
    status, row = explained("--key", "payout", "--algorithm", PSS, "--digest")
    assert (status, row["allowed"]) == (0, "yes")
    status, row = explained("--key", "fees")
    assert (status, row["rule"]) == (1, "default deny: caller spiffe://bank.example/settlement has no key fees")
    assert explained("--key", "settlement", "--no-transaction-id")[0] == 0
    assert explained("--key", "settlement", "--verify")[0] == 0
    assert explained("--key", "payout", "--verify")[0] == 1
    who = ("--by", "alice@bank.example", "--reason", "why", "--policy", str(file))
    assert signer_policy("kill", "--key", "settlement", *who).returncode == 0
    status, row = explained("--key", "settlement")
    assert (status, row["code"]) == (1, "key_killed")
    assert row["rule"].startswith("kill switch: key settlement since ")


def test_explain_says_what_the_service_answers_about_keys(service: Governed) -> None:
    """Which aliases there are, only they learn to whom they are granted; the settings' keys are asked last."""
    service.write(caller(HTTP, keys=["settlement", "planned"]))
    with all_running(service):
        for key, code in (("planned", "unknown_key"), ("payout", "not_authorised"), ("nobodys", "not_authorised")):
            explained = service.run("explain", "--caller", HTTP, "--key", key, "--output", "json")
            answer = service.ask(key=key)
            assert (explained.returncode, json.loads(explained.stdout)[0]["code"]) == (1, code)
            assert answer.json()["code"] == code
            assert answer.json()["detail"] == json.loads(explained.stdout)[0]["message"]


def test_a_kill_that_stops_nobody_says_so(tmp_path: Path) -> None:
    """A slip of the pen at 3 a.m. must not pass for a stop; it is kept, and so is one over a bad policy."""
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    who = ("--by", "alice@bank.example", "--reason", "why", "--policy", str(file))
    for target in (("--key", "setlement"), ("--caller", "dns:setlement.bank.example")):
        slip = signer_policy("kill", *target, *who)
        assert (slip.returncode, "stops nothing" in slip.stderr) == (1, True)
    known = signer_policy("kill", "--caller", "dns:audit.bank.example", *who)
    assert (known.returncode, "stops nothing" in known.stderr) == (0, False)
    file.write_text("nonsense")
    blind = signer_policy("kill", "--key", "settlement", *who)
    assert (blind.returncode, "cannot be checked" in blind.stderr) == (0, True)
    kills = json.loads((tmp_path / "policy.kills.json").read_text())
    assert set(kills["keys"]) == {"setlement", "settlement"}
    assert set(kills["callers"]) == {"dns:setlement.bank.example", "dns:audit.bank.example"}
