"""The HSM gives wrong signatures: none leaves, nothing is signed after the second, and a person brings it back."""

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.service.running import audit_records, ready, running, sign, until
from tests.service.test_start import run


def clear(stack: Stack) -> None:
    """Do what the operator does."""
    done = run(stack, "hsm", "clear", "--by", "ada@bank.example", "--reason", "HSM replaced")
    assert (done.returncode, "two signatures in a row did not verify" in done.stdout) == (0, True), done.stderr


def test_after_two_wrong_signatures_a_person_has_to_clear_it(stack: Stack, shim: Shim) -> None:
    """Both are withheld; a restart changes nothing; once cleared, it signs the same transaction; all is on record."""
    assert run(stack, "hsm", "clear", "--by", "ada", "--reason", "looked").returncode == 1
    with running(stack):
        shim.spoil_signatures("flip", times=2)
        first, second = sign(stack, "WRONG-1"), sign(stack, "WRONG-1")
        assert {(answer.status_code, answer.json()["code"]) for answer in (first, second)} == {
            (502, "signature_invalid")
        }
        until(lambda: not ready(stack), "not ready")
        before = shim.counts()["C_Sign"].calls
        assert sign(stack, "WRONG-2").json()["code"] == "hsm_unavailable"
        assert shim.counts()["C_Sign"].calls == before
    service = stack.launch()
    try:
        service.wait_for(f"{stack.http_url}/livez")
        assert not ready(stack)
        clear(stack)
        service.wait_for(f"{stack.http_url}/readyz")
        assert sign(stack, "WRONG-1").status_code == 200
    finally:
        assert service.terminate() == 0
    told = [
        record["detail"].partition(":")[0] for record in audit_records(stack) if record["operation"] == "hsm.breaker"
    ]
    assert told == ["latched", "latched", "cleared", "half_open", "closed"]
    wrong = [record for record in audit_records(stack) if record.get("error_code") == "signature_invalid"]
    assert [record["transaction_id"] for record in wrong] == ["WRONG-1", "WRONG-1"]
    assert all(record["session_handle"] and record["signature_sha256"] for record in wrong)
