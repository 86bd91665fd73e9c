"""`signer ledger find`: the whole history of a transaction, in a file and in a table, while the ledger is in use."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from signer.demo.stack import Emulator
from signer.ledger.record import this_process
from tests.integration import ledgers
from tests.integration.ledgers import Ledger, new_table, open_table
from tests.unit.stores import LEASE_S, Clock, claim, new_ledger, signature

NEEDED = """
[hsm]
module = "/none"
token = "none"
pin = "none"
[keys.settlement]
label = "none"
[audit]
directory = "audit"
[ledger]
"""


class Found:
    """A ledger that is open, and the settings of another process."""

    def __init__(self, ledger: Ledger, clock: Clock, config: Path) -> None:
        self.ledger = ledger
        self.clock = clock
        self._config = config

    def find(self, transaction_id: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "signer", "ledger", "find", transaction_id, "--config", str(self._config)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(params=["sqlite", "dynamodb"])
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Found]:
    clock, config = Clock(), tmp_path / "signer.toml"
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite3"
        config.write_text(f'{NEEDED}path = "{path}"\n')
        opened: Ledger = new_ledger(path, clock)
    else:
        emulator: Emulator = request.getfixturevalue("emulator")
        table = new_table(emulator)
        place = f'backend = "dynamodb"\ntable = "{table}"\nendpoint_url = "{emulator.url}"\n'
        config.write_text(f"{NEEDED}{place}")
        opened = open_table(emulator.url, table, clock)
    with closing(opened) as ledger:
        yield Found(ledger, clock, config)


def test_the_whole_history_is_told_while_the_ledger_is_in_use(found: Found) -> None:
    """Under every key: who bound it, who took it over, what was signed; the next claim is not held up."""
    ledgers.granted(found.ledger, claim("T"))
    found.clock.now_s += LEASE_S
    second = ledgers.granted(found.ledger, claim("T"))
    found.clock.now_s += 1
    found.ledger.complete([(second, signature("s"))])
    ledgers.granted(found.ledger, replace(claim("T", b"other"), key_alias="payout"))
    done = found.find("T", "--output", "json")
    assert done.returncode == 0, done.stderr
    payout, settlement = json.loads(done.stdout)
    assert [event["event"] for event in settlement["events"]] == ["bound", "taken over", "completed"]
    assert {event["by"] for event in settlement["events"]} == {this_process()}
    assert [event["at"] for event in settlement["events"]] == [
        "2028-03-07T00:00:00.000000Z",
        "2028-03-07T00:02:00.000000Z",
        "2028-03-07T00:02:01.000000Z",
    ]
    assert (settlement["state"], settlement["take_overs"]) == ("signed", 1)
    assert settlement["signature"] == signature("s").to_message()
    assert settlement["digest"] == f"sha256:{claim('T').digest.hex()}"
    assert (payout["key_alias"], payout["state"], payout["signature"]) == ("payout", "in progress", None)
    ledgers.granted(found.ledger, claim("U"))


def test_the_table_says_the_same(found: Found) -> None:
    """One line for each thing that happened; what is not signed says how it stands."""
    mine = ledgers.granted(found.ledger, claim("T"))
    found.ledger.release([mine])
    ledgers.granted(found.ledger, claim("T"))
    lines = _lines(found.find("T"))
    assert [line[0] for line in lines] == ["settlement"] * 3
    assert "bound" in lines[0]
    assert f"sha256:{mine.claim.digest.hex()}" in lines[0]
    assert "over" in lines[1]
    assert "progress" in lines[2]
    assert mine.token not in str(lines)


def test_what_nobody_named_is_not_found(found: Found) -> None:
    """Said on stderr, and by the exit status; the list is empty."""
    done = found.find("T", "--output", "json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])
    assert "knows nothing" in done.stderr


def test_no_ledger_is_made_by_looking(tmp_path: Path) -> None:
    """Where there is none, the command says so and leaves none."""
    config, path = tmp_path / "signer.toml", tmp_path / "ledger.sqlite3"
    config.write_text(f'{NEEDED}path = "{path}"\n')
    command = [sys.executable, "-m", "signer", "ledger", "find", "T", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 78
    assert "there is no ledger" in done.stderr
    assert not path.exists()


def _lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()[1:]]
