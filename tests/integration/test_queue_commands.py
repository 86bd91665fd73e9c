"""`signer queue`: what operators see of the queues, and how they send a batch in once more."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from signer.demo.stack import Emulator
from signer.errors import HsmUnavailableError
from tests.integration.conftest import Entrance, StartEntrance
from tests.integration.queues import Queue, Queues, batch, fresh_queues

Run = Callable[..., subprocess.CompletedProcess[str]]

SETTINGS = """
[hsm]
module = "/nowhere/no-command-here-loads-it.so"
token = "none"
pin = "0000"
[keys.settlement]
label = "none"
[ledger]
path = "{directory}/ledger.sqlite3"
[audit]
directory = "{directory}/audit"
[sqs]
endpoint_url = "{url}"
inbound_url = "{queues.inbound.url}"
outbound_url = "{queues.outbound.url}"
quarantine_url = "{queues.quarantine.url}"
"""


@pytest.fixture
def run(tmp_path: Path, emulator: Emulator) -> Run:
    """Run `signer queue` over these queues."""

    def run(queues: Queues, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = tmp_path / "signer.toml"
        config.write_text(SETTINGS.format(directory=tmp_path, url=emulator.url, queues=queues))
        command = [sys.executable, "-m", "signer", "queue", *arguments]
        environment = {**os.environ, "SIGNER_CONFIG": str(config)}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)

    return run


def rows_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Read what was printed as JSON."""
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def quarantine(entrance: Entrance, *bodies: str, **attributes: str | bytes) -> None:
    """Have bodies set aside, one after the other."""
    for count, body in enumerate(bodies, entrance.count("quarantined") + 1):
        entrance.queues.inbound.put(body, **attributes)
        entrance.wait_for("quarantined", count)


def test_status_counts_what_lies_in_every_queue(run: Run, queues: Queues) -> None:
    """Waiting and in flight, in each queue and in the dead-letter queue, and after how many receives it gets there."""
    dead = queues.inbound.move_after(7)
    for _ in range(3):
        queues.inbound.put(batch())
    queues.inbound.client.receive_message(QueueUrl=queues.inbound.url, MaxNumberOfMessages=1)
    queues.outbound.put("signed")
    dead.put("dead")
    rows = rows_of(run(queues, "status", "--output", "json"))
    seen = [(row["role"], row["waiting"], row["in_flight"], row["moves_after"], row["problem"]) for row in rows]
    assert seen == [
        ("inbound", 2, 1, 7, None),
        ("outbound", 1, 0, None, None),
        ("quarantine", 0, 0, None, None),
        ("dead_letter", 1, 0, None, None),
    ]


def test_status_says_which_queue_does_not_answer(run: Run, queues: Queues) -> None:
    """Exit status 1, and the others are shown all the same."""
    queues.outbound.client.delete_queue(QueueUrl=queues.outbound.url)
    done = run(queues, "status")
    assert done.returncode == 1
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "NonExistentQueue" in lines["outbound"] or "QueueDoesNotExist" in lines["outbound"]
    assert "failed" not in lines["inbound"] + lines["quarantine"]


def test_quarantined_lists_and_leaves_all_in_place(run: Run, entrance: Entrance) -> None:
    """The oldest first, each with its reason; looked at twice, everything is still there for everybody."""
    quarantine(entrance, "not JSON", batch(schema="settlement-batch/9", batch_id="STL-9"))
    for _ in range(2):
        rows = rows_of(run(entrance.queues, "quarantined", "--output", "json"))
        assert [(row["n"], row["code"], row["batch_id"]) for row in rows] == [
            (1, "invalid_json", None),
            (2, "unknown_schema", "STL-9"),
        ]
    assert len(entrance.queues.quarantine.look()) == 2


def test_show_prints_one_whole_and_commands_no_terminal(run: Run, entrance: Entrance) -> None:
    """By number and by the beginning of its id: body, attributes, and the reasons for each transaction; ASCII alone."""
    body = batch(schema="settlement-batch/9").replace("1250.00", "\u202e00.0521")
    quarantine(entrance, "not JSON", body, sender="bank-7")
    (_, row) = rows_of(run(entrance.queues, "quarantined", "--output", "json"))
    for name in ("2", row["entry"], row["entry"][:8]):
        done = run(entrance.queues, "quarantined", "--show", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        shown = json.loads(done.stdout)
        assert (shown["entry"], shown["body"], shown["attributes"]) == (row["entry"], body, {"sender": "bank-7"})
        assert [each["code"] for each in shown["reasons"]["transactions"]] == ["unknown_schema"] * 3


def test_a_replay_comes_in_as_it_first_came(run: Run, make_entrance: StartEntrance) -> None:
    """Body and all ten attributes, the one that had made room for the reasons too; then quarantine is empty."""
    own: dict[str, str | bytes] = {f"a{number}": f"v{number}" for number in range(9)} | {"b": b"\x00\xff"}
    entrance = make_entrance()
    entrance.consumer.start()
    quarantine(entrance, "not JSON", **own)
    entrance.drain()
    done = run(entrance.queues, "replay", "1")
    assert (done.returncode, done.stdout[:9]) == (0, "replayed "), done.stderr
    assert entrance.queues.quarantine.depth == 0
    (message,) = entrance.queues.inbound.take()
    assert message["Body"] == "not JSON"
    came = message["MessageAttributes"]
    assert {name: value.get("StringValue", value.get("BinaryValue")) for name, value in came.items()} == own


def test_what_failed_too_often_is_signed_when_replayed(run: Run, make_entrance: StartEntrance) -> None:
    """Set aside because the HSM was away for too long, replayed when it is back: the batch goes out."""
    entrance = make_entrance()
    entrance.queues.inbound.move_after(3)
    entrance.simulation.key_ring.fail_next(HsmUnavailableError("connection lost"), times=2)
    entrance.queues.inbound.put(batch())
    entrance.consumer.start()
    entrance.wait_for("quarantined")
    (row,) = rows_of(run(entrance.queues, "quarantined", "--output", "json"))
    assert row["code"] == "receives_exhausted"
    assert [each["code"] for each in row["history"]] == ["hsm_unavailable"] * 2
    assert run(entrance.queues, "replay", row["entry"][:6]).returncode == 0
    entrance.wait_for("forwarded")
    assert (entrance.queues.quarantine.depth, entrance.queues.outbound.depth) == (0, 1)


def test_a_replay_of_what_was_signed_signs_nothing_new(run: Run, make_entrance: StartEntrance) -> None:
    """An entry put in twice, as when the first answer was lost, comes out twice with one signature each."""
    entrance = make_entrance()
    body = batch("TXN-1", "TXN-2")
    for _ in range(2):
        entrance.queues.quarantine.put(body)
    entrance.consumer.start()
    assert run(entrance.queues, "replay", "1", "2").returncode == 0
    first, second = entrance.queues.outbound.take(2)
    assert first["Body"] == second["Body"]
    assert len(entrance.simulation.key_ring.signed) == 2


def test_a_replay_keeps_its_group(run: Run, emulator: Emulator, start_entrance: StartEntrance) -> None:
    """In FIFO queues it goes back into the group it came from; one that is refused again is seen again."""
    entrance = start_entrance(fresh_queues(emulator.sqs, ".fifo"))
    entrance.queues.inbound.put_in_group("bank-7", "not JSON")
    entrance.wait_for("quarantined")
    assert run(entrance.queues, "replay", "1").returncode == 0
    entrance.wait_for("quarantined", 2)
    (message,) = entrance.queues.quarantine.take()
    assert message["Attributes"]["MessageGroupId"] == "bank-7"


@pytest.mark.parametrize("name", ["0", "3", "99999999", "abcdef", "", "-"])
def test_what_is_not_there_is_not_replayed(run: Run, queues: Queues, name: str) -> None:
    """Exit status 65, and nothing is touched: all that are named are looked up before the first is sent."""
    queues.quarantine.put("one")
    queues.quarantine.put("two")
    done = run(queues, "replay", "--", "1", name)
    assert done.returncode == 65, done.stdout + done.stderr
    assert (queues.quarantine.depth, queues.inbound.depth) == (2, 0)


def test_it_leaves_quarantine_only_when_inbound_has_it(run: Run, queues: Queues) -> None:
    """Where the inbound queue does not take it, the entry stays, visible to everybody, and the status says so."""
    queues.quarantine.put("one")
    gone = Queues(Queue(queues.inbound.client, queues.inbound.url + "-gone"), queues.outbound, queues.quarantine)
    done = run(gone, "replay", "1")
    assert (done.returncode, done.stdout) == (75, "")
    assert len(queues.quarantine.look()) == 1
