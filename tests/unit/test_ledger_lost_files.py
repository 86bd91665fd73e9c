"""The ledger's file is taken away: no claim is granted that nobody will find again."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from signer.errors import ConfigurationError, ConflictError, LedgerUnavailableError
from signer.ledger.sqlite import SqliteLedger
from signer.ports import Claimed
from signer.settings import LedgerSettings
from tests.unit.stores import claim, new_ledger, new_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "ledger.sqlite"


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "directory removed": lambda path: shutil.rmtree(path.parent),
    "file removed": Path.unlink,
    "file moved away": lambda path: path.rename(path.with_suffix(".moved")),
    "replaced by a copy": replace_by_a_copy,
    "write-ahead log removed": lambda path: wal(path).unlink(),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
def test_a_ledger_without_its_file_grants_nothing(path: Path, lose: Callable[[Path], object]) -> None:
    """From the loss on every claim is refused, and no new file comes about."""
    with closing(new_ledger(path)) as ledger:
        ledger.claim([claim("T")])
        lose(path)
        left = path.exists()
        for _ in range(2):
            with pytest.raises(LedgerUnavailableError, match="is gone or was replaced"):
                ledger.claim([claim("U")])
            assert not ledger.healthy
        assert path.exists() == left


def test_a_ledger_that_was_lost_once_stays_unavailable(path: Path) -> None:
    """Who puts the file back has to start the service again; what was claimed before is bound then, and no more."""
    moved = path.with_name("moved")
    with closing(new_ledger(path)) as ledger:
        ledger.claim([claim("T")])
        path.rename(moved)
        with pytest.raises(LedgerUnavailableError):
            ledger.claim([claim("U")])
        moved.rename(path)
        with pytest.raises(LedgerUnavailableError, match="is gone or was replaced"):
            ledger.claim([claim("U")])
    with closing(new_ledger(path)) as ledger:
        answers = ledger.claim([claim("T", b"other"), claim("U", b"other")])
        assert [type(answer) for answer in answers] == [ConflictError, Claimed]


def test_a_file_taken_away_during_a_commit_grants_nothing(path: Path) -> None:
    """A claim that was committed into a file without a name is not granted."""
    taken: list[Path] = []

    def take_away() -> float:
        for file in taken:
            file.unlink()
        return 0.0

    with closing(new_ledger(path, take_away)) as ledger:
        taken.append(path)
        with pytest.raises(LedgerUnavailableError, match="is gone or was replaced"):
            ledger.claim([claim("T")])


def not_new(path: Path) -> SqliteLedger:
    return SqliteLedger(path, LedgerSettings(path=path), new_metrics(), lambda: 0.0, may_be_new=False)


def test_a_ledger_is_new_once(path: Path) -> None:
    """It says so in the opening that made it, and not afterwards."""
    for expected in (True, False):
        with closing(new_ledger(path)) as ledger:
            assert ledger.is_new is expected
    with closing(not_new(path)) as ledger:
        assert not ledger.is_new


@pytest.mark.parametrize("state", ["absent", "empty", "without tables"])
def test_a_new_ledger_is_refused_where_one_must_be(path: Path, state: str) -> None:
    """However often the start is tried, no ledger is made; the message names the file and the way out."""
    path.parent.mkdir()
    if state == "empty":
        path.touch()
        wal(path).write_bytes(b"what is left of it")
    if state == "without tables":
        with closing(new_ledger(path)):
            pass
        with closing(sqlite3.connect(path)) as other:
            other.executescript("DROP TABLE claims; DROP TABLE openings; PRAGMA user_version = 0")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"ledger\.accept_new") as caught:
            not_new(path)
        assert str(path) in caught.value.message
    if state == "empty":
        assert wal(path).read_bytes() == b"what is left of it"
