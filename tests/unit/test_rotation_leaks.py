"""What the rotation under load lets out is found, wherever it stands."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from loadtest.rotation.load import CANARY, Seen
from loadtest.rotation.proof import leaks
from loadtest.rotation.stage import Fleet

PIN = "a-pin-like-none"


class Member:
    """As much of a process as is looked at afterwards."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    members = cast("Any", (Member(tmp_path / "one"), Member(tmp_path / "two")))
    return Fleet(members, datetime.now(UTC), PIN.encode())


def test_where_nothing_is_nothing_is_found(fleet: Fleet) -> None:
    """And a signed batch holds what was signed."""
    assert list(leaks(fleet, Seen(heard=[b"an answer"], batches={"B": [f"{{{CANARY}}}"]}))) == []


@pytest.mark.parametrize("secret", [PIN, CANARY, PIN.encode().hex()])
def test_a_secret_in_a_file_is_found(fleet: Fleet, secret: str) -> None:
    """However it is spelt."""
    (fleet.stacks[1].directory / "serve.log").write_text(f"before {secret} after")
    assert list(leaks(fleet, Seen())) == ["two/serve.log: a secret stands in it"]


@pytest.mark.parametrize("secret", [PIN, CANARY])
def test_a_secret_in_an_answer_is_found(fleet: Fleet, secret: str) -> None:
    """Nobody wrote it down, but somebody has it."""
    assert list(leaks(fleet, Seen(heard=[b"X: " + secret.encode()]))) == ["answers: a secret stands in it"]


def test_the_pin_in_a_signed_batch_is_found(fleet: Fleet) -> None:
    """There alone what was signed is no secret."""
    found = list(leaks(fleet, Seen(batches={"B": [f"{{{PIN}}}"]})))
    assert found == ["signed batches: a secret stands in it"]
