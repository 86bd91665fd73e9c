"""The kill switch: one command stops a key or a caller on every task, within a second, until a person revives it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from signer.demo.stack import Emulator, Token
from tests.service.batches import Downstream, inbound_is_empty, make_batches, send
from tests.service.governed import HTTP, Governed, all_running, caller, governed, queue_of
from tests.service.running import PATIENCE_S, until

WHO = ("--by", "alice@bank.example", "--reason", "it signed what nobody sent")
TARGETS = {"key": ("--key", "settlement", "key_killed"), "caller": ("--caller", HTTP, "caller_killed")}
LONG_POLL_S = 1
Pair = tuple[Governed, Governed]


@pytest.fixture
def pair(tmp_path: Path, emulator: Emulator, service_token: Token) -> Pair:
    """Two tasks that share a policy file, and so the kill switch beside it."""
    file = tmp_path / "policy.toml"
    one, two = (governed(tmp_path / name, emulator, service_token, file) for name in ("one", "two"))
    one.write(caller(HTTP), caller(queue_of(one.stack)), caller(queue_of(two.stack)))
    return one, two


class Asking:
    """Asks one service over and over, on a thread of its own."""

    def __init__(self, service: Governed) -> None:
        self.codes: list[str] = []
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        url = f"{self._service.stack.http_url}/v1/sign"
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not self._stop.wait(0.02):
                number = len(self.codes)
                body = {"key": "settlement", "transaction_id": f"A-{number}", "message": {"amount": f"{number}.00"}}
                self.codes.append(client.post(url, json=body).json().get("code", "signed"))


@contextmanager
def asking(pair: Pair) -> Iterator[list[Asking]]:
    """Ask both for the block."""
    both = [Asking(service) for service in pair]
    try:
        yield both
    finally:
        for one in both:
            one.stop()


def moment(text: str) -> datetime:
    """A time of the audit log."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("kind", TARGETS)
def test_it_works_on_both_within_a_second(pair: Pair, kind: str) -> None:
    """Both are asked without a pause while somebody turns it; the audit log tells what was signed last, and when."""
    option, name, code = TARGETS[kind]
    with all_running(*pair), asking(pair) as both:
        until(lambda: all(len(one.codes) > 10 for one in both), "signatures of both")
        turned = pair[0].run("kill", option, name, *WHO)
        assert turned.returncode == 0, turned.stderr
        killed_at = datetime.fromtimestamp(kill_file(pair).stat().st_mtime, UTC)
        until(lambda: all(one.codes[-5:] == [code] * 5 for one in both), "refusals of both")
        assert pair[1].run("revive", option, name, *WHO).returncode == 0
        until(lambda: all(one.codes[-1] == "signed" for one in both), "signatures of both")
    for service, one in zip(pair, both, strict=True):
        assert set(one.codes) == {"signed", code}
        (killed,), (revived,) = service.recorded("policy.killed"), service.recorded("policy.revived")
        assert "alice@bank.example: it signed what nobody sent" in killed["detail"]
        assert "alice@bank.example" in revived["detail"]
        assert killed.get("key_alias") == ("settlement" if kind == "key" else None)
        signed = [record for record in service.recorded("sign") if record["outcome"] == "signed"]
        wrongly = [record for record in signed if in_between(record, killed_at, revived)]
        assert wrongly == []
        # A killed key is found in the request; a killed caller's is not even read.
        refusals = service.recorded("sign" if kind == "key" else "admit")
        refused = [record for record in refusals if record.get("error_code") == code]
        assert {record["outcome"] for record in refused} == {"refused"}
        assert (moment(refused[0]["time"]) - killed_at).total_seconds() < 1


def in_between(record: dict[str, Any], killed_at: datetime, revived: dict[str, Any]) -> bool:
    """Whether something was signed a second or more after the kill, and before the end of it."""
    at = moment(record["time"])
    return (at - killed_at).total_seconds() >= 1 and at < moment(revived["time"])


def kill_file(pair: Pair) -> Path:
    """Where the kill switch is."""
    return pair[0].file.with_suffix(".kills.json")


def test_it_survives_a_restart(pair: Pair) -> None:
    """Turned while nothing runs: whoever starts knows of it before the first request, warns and is ready all the same.

    Who revives it while nothing runs is on record as well.
    """
    service = pair[0]
    assert service.run("kill", "--key", "settlement", *WHO).returncode == 0
    for _ in range(2):
        with all_running(service):
            refused = service.ask()
            assert (refused.status_code, refused.json()["code"], refused.json()["retryable"]) == (
                403,
                "key_killed",
                False,
            )
            assert "alice" not in refused.text
            readiness = httpx.get(f"{service.stack.http_url}/readyz")
            assert (readiness.status_code, readiness.json()["warnings"]) == (200, ["key settlement is killed"])
            metrics = httpx.get(f"{service.stack.http_url}/metrics").text
            assert 'signer_policy_killed{kind="key"} 1.0' in metrics
    loaded = [record["detail"] for record in service.recorded("policy.loaded")]
    assert sum(detail.startswith("key settlement since") for detail in loaded) == 2
    assert service.run("revive", "--key", "settlement", *WHO).returncode == 0
    with all_running(service):
        assert service.ask().status_code == 200


@pytest.mark.parametrize("kind", ["key", "caller"])
def test_a_batch_waits_while_it_is_killed(pair: Pair, kind: str) -> None:
    """All that the queue may use is killed: it is not even read, so no receive is spent; revived, all comes out."""
    service = pair[0]
    target = ("--key", "settlement") if kind == "key" else ("--caller", queue_of(service.stack))
    assert service.run("kill", *target, *WHO).returncode == 0
    batches = make_batches(2, 3)
    with all_running(service):
        send(service.stack, batches)
        assert service.ask().status_code == (403 if kind == "key" else 200)
        time.sleep(3 * LONG_POLL_S)  # to see that nothing happens takes time
        assert 'signer_batches_total{event="received"}' not in httpx.get(f"{service.stack.http_url}/metrics").text
        assert not inbound_is_empty(service.stack)
        assert service.run("revive", *target, *WHO).returncode == 0
        downstream = Downstream(service.stack)
        downstream.take_all(batches)
    assert service.recorded("quarantine") == []


@pytest.mark.parametrize("kind", ["key", "caller"])
def test_a_batch_at_hand_waits_too(pair: Pair, kind: str) -> None:
    """Killed while the queue is read: whatever was brought is not signed, not set aside, and comes out in the end."""
    service = pair[0]
    target = ("--key", "settlement") if kind == "key" else ("--caller", queue_of(service.stack))
    with all_running(service):
        assert service.run("kill", *target, *WHO).returncode == 0
        service.wait_for("policy.killed")
        batches = make_batches(2, 3)
        send(service.stack, batches)
        time.sleep(3 * LONG_POLL_S)
        assert not inbound_is_empty(service.stack)
        assert service.run("revive", *target, *WHO).returncode == 0
        downstream = Downstream(service.stack)
        downstream.take_all(batches)
    (revived,) = service.recorded("policy.revived")
    signed = [record for record in service.recorded("sign") if record["outcome"] == "signed"]
    assert all(moment(record["time"]) >= moment(revived["time"]) for record in signed)
    assert service.recorded("quarantine") == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("kill", "--key", "settlement", "--caller", HTTP, *WHO), 65, "exactly one of"),
        (("kill", *WHO), 65, "exactly one of"),
        (("kill", "--key", "not an alias", *WHO), 65, "no key alias"),
        (("kill", "--key", "settlement", "--by", "alice@bank.example", "--reason", ""), 65, "reason"),
        (("revive", "--key", "settlement", *WHO), 1, "it was not killed"),
    ],
)
def test_what_is_no_order_changes_nothing(pair: Pair, arguments: tuple[str, ...], status: int, said: str) -> None:
    """It is told why, and there is no file."""
    done = pair[0].run(*arguments)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not kill_file(pair).exists()


Write = Callable[[Governed], None]


def spoil(service: Governed) -> None:
    """Somebody edits the file by hand, and not well."""
    kill_file_of(service).write_text("{")


def take_away(service: Governed) -> None:
    """Somebody deletes it."""
    kill_file_of(service).unlink()


def kill_file_of(service: Governed) -> Path:
    """Where its kill switch is."""
    return service.file.with_suffix(".kills.json")


@pytest.mark.parametrize("how", [spoil, take_away])
def test_a_kill_file_that_is_bad_or_gone_revives_nothing(pair: Pair, how: Write) -> None:
    """What was killed stays killed, with a warning and a record; a bad file is no start either."""
    service = pair[0]
    with all_running(service):
        assert service.run("kill", "--key", "settlement", *WHO).returncode == 0
        service.wait_for("policy.killed")
        how(service)
        record = service.wait_for("policy.refused")
        assert "kill file" in record["detail"]
        assert service.ask().json()["code"] == "key_killed"
        assert "what was in force stays so" in httpx.get(f"{service.stack.http_url}/readyz").json()["warnings"][0]
        assert "signer_policy_stale 1.0" in httpx.get(f"{service.stack.http_url}/metrics").text


def test_the_policy_is_shared(pair: Pair) -> None:
    """What one file says, both do: a caller taken out of it is out on both."""
    one, two = pair
    with all_running(*pair):
        assert [service.ask().status_code for service in pair] == [200, 200]
        one.write(caller(queue_of(one.stack)))
        for service in (one, two):
            record = service.wait_for("policy.changed")
            assert f"caller {HTTP} removed" in record["detail"]
            assert service.ask().json()["code"] == "not_authorised"
