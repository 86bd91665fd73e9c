"""The ledger on disk: durable before it answers, in few commits, held by one process, and well again after faults."""

import functools
import json
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from signer.errors import AlreadyRunningError, ConfigurationError, ConflictError, LedgerUnavailableError
from signer.ledger.register import FileRegister
from signer.ledger.sqlite import SqliteLedger
from signer.ports import Claimed
from signer.settings import LedgerSettings
from tests.unit.stores import (
    PATIENCE_S,
    Clock,
    claim,
    in_threads,
    new_ledger,
    new_metrics,
    signature,
    start_program,
    wait_until,
)

DAY_S = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "ledger.sqlite"


def granted(ledger: SqliteLedger, transaction_id: str) -> Claimed:
    """Claim a transaction that is free."""
    (answer,) = ledger.claim([claim(transaction_id)])
    assert isinstance(answer, Claimed)
    return answer


def test_a_batch_costs_one_commit(path: Path) -> None:
    """Five hundred claims are made durable by one commit, and so are their signatures."""
    metrics = new_metrics()
    with closing(new_ledger(path, metrics=metrics)) as ledger:
        claimed = [
            answer for answer in ledger.claim([claim(str(n)) for n in range(500)]) if isinstance(answer, Claimed)
        ]
        assert metrics.registry.get_sample_value("signer_commit_group_size_count", {"store": "ledger"}) == 1
        assert ledger.complete([(one, signature(one.claim.transaction_id)) for one in claimed]) == [None] * 500
        assert metrics.registry.get_sample_value("signer_commit_group_size_count", {"store": "ledger"}) == 2


def test_a_batch_is_bound_as_a_whole_or_not_at_all(path: Path) -> None:
    """When one claim of a batch cannot be stored, those before it are not bound either, and the ledger works on."""
    with closing(new_ledger(path)) as ledger:
        with pytest.raises(LedgerUnavailableError, match="UnicodeEncodeError"):
            ledger.claim([claim("T"), claim("a lone surrogate: \ud800")])
        (answer,) = ledger.claim([claim("T", b"other")])
        assert isinstance(answer, Claimed)


def test_concurrent_requests_share_a_commit(path: Path) -> None:
    """Claims of fifteen threads that arrive while a commit waits are made durable by one further commit."""
    metrics = new_metrics()
    with closing(new_ledger(path, metrics=metrics)) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.release([Claimed(claim("none"), "none")])
        wait_until(lambda: ledger._commits.waiting == 0)  # noqa: SLF001 - only the queue knows
        calls = [functools.partial(ledger.claim, [claim(str(number))]) for number in range(15)]
        threads = threading.Thread(target=in_threads, args=(calls,))
        threads.start()
        wait_until(lambda: ledger._commits.waiting == 15)  # noqa: SLF001
        other.execute("ROLLBACK")
        threads.join(PATIENCE_S)
        assert metrics.registry.get_sample_value("signer_commit_group_size_count", {"store": "ledger"}) == 2
        assert metrics.registry.get_sample_value("signer_commit_group_size_sum", {"store": "ledger"}) == 16


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """SQLite is told to sync its write-ahead log in every commit."""
    with closing(new_ledger(path)) as ledger:
        connection = ledger._connection  # noqa: SLF001 - the setting belongs to the connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_that_hangs_is_named_and_leaves_no_lease_behind(path: Path) -> None:
    """Claims that were not answered in time are free again as soon as the store works."""
    with closing(new_ledger(path, timeout_s=0.2)) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailableError):
            ledger.claim([claim("T")])
        assert not ledger.healthy
        other.execute("ROLLBACK")
        granted(ledger, "T")
        assert ledger.healthy


def test_a_full_disk_is_named_and_the_ledger_recovers_by_itself(path: Path) -> None:
    """A real write error binds nothing that was not answered; all that was claimed before stays bound."""
    with start_program("fill_ledger", path) as program:
        said = [json.loads(line) for line in program.stdout or []]
    *good, failed, recovered = said
    assert len(good) > 10
    assert (failed["code"], failed["healthy"]) == ("ledger_unavailable", False)
    assert recovered["healthy"]
    durable = [name for line in [*good, recovered] for name in line["durable"]]
    with closing(new_ledger(path)) as ledger:
        assert all(isinstance(a, ConflictError) for a in ledger.claim([claim(name, b"other") for name in durable]))


def test_nothing_acknowledged_is_lost_to_kill_9(path: Path) -> None:
    """Three times a writer of four threads is killed in the middle: what it claimed is bound, what it kept is kept."""
    for number in range(3):
        path = path.with_name(f"{number}.sqlite")
        with start_program("claim_forever", path) as program:
            assert program.stdout is not None
            lines = [program.stdout.readline() for _ in range(40)]
            program.kill()
            lines += program.stdout.readlines()
        said = [json.loads(line) for line in lines if line.endswith("\n")]
        claimed = [name for line in said for name in line.get("claimed", [])]
        completed = [name for line in said for name in line.get("completed", [])]
        assert completed
        with closing(new_ledger(path)) as ledger:
            assert all(isinstance(a, ConflictError) for a in ledger.claim([claim(name, b"other") for name in claimed]))
            assert ledger.claim([claim(name) for name in completed]) == [signature(name) for name in completed]


def test_a_second_process_is_refused(path: Path, tmp_path: Path) -> None:
    """Neither this process nor another one can open a ledger that is held; afterwards it is free."""
    with closing(new_ledger(path)):
        with pytest.raises(AlreadyRunningError, match="another process holds the ledger"):
            new_ledger(path)
        with start_program("open_both", tmp_path / "audit", path) as program:
            said = [json.loads(line) for line in program.stdout or []]
        assert [line["code"] for line in said] == [None, "already_running"]
        assert str(path) in said[1]["message"]
    new_ledger(path).close()


NAMES: dict[str, Callable[[Path, Path], object]] = {
    "a symbolic link to it": lambda path, other: other.symlink_to(path),
    "a hard link to it": lambda path, other: other.hardlink_to(path),
    "its own, the lock file removed": lambda path, _: path.with_name(path.name + ".lock").unlink(),
}


@pytest.mark.parametrize("make", NAMES.values(), ids=NAMES.keys())
def test_a_second_process_is_refused_by_whatever_name(
    path: Path, tmp_path: Path, make: Callable[[Path, Path], object]
) -> None:
    """It is the file that is held and not its name: beside a hard link there would be a second write-ahead log."""
    other = tmp_path / "other.sqlite"
    with closing(new_ledger(path)):
        make(path, other)
        with pytest.raises(AlreadyRunningError, match="another process holds the ledger"):
            new_ledger(other if other.exists() else path)


def test_the_files_are_private(path: Path) -> None:
    """Only the service's user may read the ledger, its write-ahead log, or its directory."""
    with closing(new_ledger(path)) as ledger:
        granted(ledger, "T")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys([path.name, *(path.name + end for end in ("-wal", "-shm", ".lock"))], 0o600)


def test_a_ledger_of_another_version_is_refused(path: Path) -> None:
    """A schema this version does not know is neither read nor changed, and the file is let go."""
    new_ledger(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 7")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="schema 7"):
            new_ledger(path)


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    """A file of another kind is a matter of settings; a path that is not usable, of the disk."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(ConfigurationError, match="is not a database") as caught:
        new_ledger(path)
    assert str(path) in caught.value.message
    with pytest.raises(LedgerUnavailableError, match="Not a directory"):
        new_ledger(path / "directory" / "ledger.sqlite")


def test_a_closed_ledger_takes_nothing(path: Path) -> None:
    """After closing, claims are refused with the named error; releasing stays silent."""
    ledger = new_ledger(path)
    claimed = granted(ledger, "T")
    ledger.close()
    ledger.release([claimed])
    with pytest.raises(LedgerUnavailableError, match="closed"):
        ledger.claim([claim("T")])


def test_new_names_are_folded_though_claims_never_pause(path: Path) -> None:
    """Folding waits for a quiet moment, and not for ever: the small index stays small under claims without end."""
    with closing(new_ledger(path)) as ledger, closing(sqlite3.connect(path)) as connection:
        new = iter(range(1_000_000))

        def is_folded() -> bool:
            ledger.claim([claim(f"new-{next(new)}") for _ in range(50)])
            (count,) = connection.execute("SELECT count(*) FROM names").fetchone()
            return bool(count)

        wait_until(is_folded)
        assert isinstance(ledger.claim([claim("new-0", b"other")])[0], ConflictError)


def test_what_is_beyond_its_retention_is_forgotten_while_it_works(path: Path) -> None:
    """Old transactions go a few at a time; what something happened to since stays, and every claim is answered."""
    clock = Clock()
    with closing(new_ledger(path, clock, monotonic=clock)) as ledger:
        names = [f"old-{number}" for number in range(100)]
        assert len([each for each in ledger.claim([claim(name) for name in names]) if isinstance(each, Claimed)]) == 100
        clock.now_s += 200 * DAY_S
        late = granted(ledger, "old-50")
        assert ledger.complete([(late, signature("late"))]) == [None]
        clock.now_s += 201 * DAY_S
        new = iter(range(1_000_000))

        def is_forgotten() -> bool:
            granted(ledger, f"new-{next(new)}")
            with closing(sqlite3.connect(path)) as connection:
                rows = connection.execute("SELECT transaction_id FROM claims WHERE transaction_id LIKE 'old-%'")
                return [name for (name,) in rows] == ["old-50"]

        wait_until(is_forgotten)
        assert ledger.claim([claim("old-50")]) == [signature("late")]
        assert granted(ledger, "old-7").is_first
        assert isinstance(ledger.claim([claim("new-0", b"other")])[0], ConflictError)


def test_a_clock_that_is_years_ahead_has_nothing_forgotten(path: Path) -> None:
    """What is old by the time that has passed goes; what only the wrong clock calls old stays bound."""
    wall, monotonic = Clock(), Clock()
    with closing(new_ledger(path, wall, monotonic=monotonic)) as ledger:
        granted(ledger, "old")
        for clock in (wall, monotonic):
            clock.now_s += 401 * DAY_S
        granted(ledger, "T")
        wall.now_s += 500 * DAY_S
        new = iter(range(1_000_000))

        def is_old_forgotten() -> bool:
            granted(ledger, f"new-{next(new)}")
            return is_free(path, "old")

        wait_until(is_old_forgotten)
        wall.now_s -= 500 * DAY_S
        assert isinstance(ledger.claim([claim("T", b"other")])[0], ConflictError)


def is_free(path: Path, transaction_id: str) -> bool:
    """Whether no claim of the file names this transaction."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT 1 FROM claims WHERE transaction_id = ?", (transaction_id,)).fetchone() is None


@pytest.mark.parametrize("version", [2, 3])
def test_a_ledger_of_an_earlier_version_is_brought_up(path: Path, version: int) -> None:
    """Its claims and signatures are kept; those of version 2 name no version of the key, and those that come do."""
    with closing(new_ledger(path)) as ledger:
        (claimed, left) = ledger.claim([claim("T"), claim("U")])
        assert isinstance(claimed, Claimed)
        assert isinstance(left, Claimed)
        ledger.complete([(claimed, signature("S"))])
    with closing(sqlite3.connect(path)) as other:
        other.executescript("DROP TABLE digests; DROP TABLE digests_indexed; ALTER TABLE claims DROP COLUMN caller")
        if version == 2:
            other.execute("ALTER TABLE claims DROP COLUMN key_label")
        other.execute(f"PRAGMA user_version = {version}")
    with closing(new_ledger(path)) as ledger:
        kept, old, new = ledger.claim([claim(name, key_label="younger") for name in ("T", "U", "V")])
        assert kept == signature("S")
        assert isinstance(old, Claimed)
        assert isinstance(new, Claimed)
        assert (old.claim.key_label, new.claim.key_label) == (None, "younger")
        found = FileRegister(LedgerSettings(path=path)).by_digest(claim("T").digest)
        assert {binding.claim.transaction_id for binding in found} == {"T", "U", "V"}
