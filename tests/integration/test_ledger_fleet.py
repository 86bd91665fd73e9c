"""Several processes share one table: one has a transaction at a time, and who comes too late changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from signer.demo.stack import Emulator
from signer.errors import ClaimInProgressError
from signer.ledger.table import find_all
from signer.ports import Claimed
from tests.integration.ledgers import open_table
from tests.unit.stores import claim, signature

ROOT = Path(__file__).parents[2]
Start = Callable[..., "Program"]


class Program:
    """A process of the fleet."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.integration.ledger_programs", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def says(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it ended without a word"
        said: dict[str, Any] = json.loads(line)
        return said

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("null\n")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start(emulator: Emulator, table: str) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(name: str, lease_s: float, *arguments: str) -> Program:
            program = Program(name, emulator.url, table, str(lease_s), *arguments)
            return stack.enter_context(closing(program))

        yield run


def test_of_several_processes_one_is_granted_each_transaction(emulator: Emulator, table: str, start: Start) -> None:
    """Four processes claim the same 400, each in its own order: each is granted once, and keeps that signature."""
    programs = {owner: start("race", 120, owner, "400") for owner in ("one", "two", "three", "four")}
    for program in programs.values():
        program.says()
    for program in programs.values():
        program.go()
    granted = {owner: program.says()["granted"] for owner, program in programs.items()}
    assert sorted(name for names in granted.values() for name in names) == sorted(f"T-{n}" for n in range(400))
    with closing(open_table(emulator.url, table, time.time)) as ledger:
        for owner, names in granted.items():
            assert ledger.claim([claim(name) for name in names]) == [signature(owner)] * len(names)


@pytest.mark.parametrize("completed", [True, False])
def test_a_process_that_was_stopped_longer_than_its_lease_changes_nothing(
    emulator: Emulator, table: str, start: Start, *, completed: bool
) -> None:
    """Stopped, overtaken and continued, it can neither complete, release nor withdraw."""
    slow = start("own", 1, "slow")
    assert slow.says() == {"granted": True}
    os.kill(slow.process.pid, signal.SIGSTOP)
    with closing(open_table(emulator.url, table, time.time, lease_s=120)) as ledger:
        answer = ledger.claim([claim("T")])[0]
        while isinstance(answer, ClaimInProgressError):
            time.sleep(0.05)
            answer = ledger.claim([claim("T")])[0]
        assert isinstance(answer, Claimed)
        if completed:
            assert ledger.complete([(answer, signature("second"))]) == [None]
        os.kill(slow.process.pid, signal.SIGCONT)
        slow.go()
        assert slow.says() == {"error": "claim_lost"}
        if not completed:
            assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
            assert ledger.complete([(answer, signature("second"))]) == [None]
        assert ledger.claim([claim("T")]) == [signature("second")]
        (record,) = find_all(emulator.dynamodb, table, "T", time.time())
    assert record.take_overs == 1
    assert record.former[0].owner.endswith(f"/{slow.process.pid}")
