"""The ledger in SQLite: one digest and one owner for each transaction, whoever asks, dies, hangs or comes too late."""

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from signer.errors import (
    AlreadyRunningError,
    ClaimInProgressError,
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    LedgerUnavailableError,
)
from signer.ledger.sqlite import SqliteLedger
from signer.ports import Claimed
from tests.unit.stores import (
    PATIENCE_S,
    claim,
    in_threads,
    new_ledger,
    new_metrics,
    signature,
    start_program,
    wait_until,
)

LEASE_S = 120


class Clock:
    """A wall clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1_836_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path, clock: Clock) -> Iterator[SqliteLedger]:
    with closing(new_ledger(path, clock)) as opened:
        yield opened


def granted(ledger: SqliteLedger, transaction_id: str) -> Claimed:
    """Claim a transaction that is free."""
    (answer,) = ledger.claim([claim(transaction_id)])
    assert isinstance(answer, Claimed)
    return answer


def test_a_free_transaction_is_claimed_once_by_sixteen_threads(ledger: SqliteLedger) -> None:
    """Of sixteen claims at one moment exactly one is granted; the others are told that it is in progress."""
    for number in range(20):
        answers = [
            answer
            for answers in in_threads([lambda name=f"T-{number}": ledger.claim([claim(name)])] * 16)
            for answer in (answers if isinstance(answers, list) else [answers])
        ]
        assert sum(isinstance(answer, Claimed) for answer in answers) == 1
        assert sum(isinstance(answer, ClaimInProgressError) for answer in answers) == 15


def test_one_call_cannot_claim_a_transaction_twice(ledger: SqliteLedger) -> None:
    """The second of two equal claims in one batch is in progress already."""
    first, second = ledger.claim([claim("T"), claim("T")])
    assert isinstance(first, Claimed)
    assert isinstance(second, ClaimInProgressError)


def test_each_key_has_transactions_of_its_own(ledger: SqliteLedger) -> None:
    """The same transaction id under another key alias is another transaction."""
    one = claim("T")
    answers = ledger.claim([one, type(one)("other", "T", b"\1" * 32, one.algorithm)])
    assert all(isinstance(answer, Claimed) for answer in answers)


def test_another_digest_or_algorithm_is_a_conflict_for_ever(path: Path, clock: Clock) -> None:
    """While the lease runs, after it, after completion, after release and after a restart, the binding holds."""

    def is_bound(ledger: SqliteLedger) -> bool:
        answers = ledger.claim([claim("T", b"other"), claim("T", algorithm="RSASSA_PKCS1_V1_5_SHA_256")])
        return all(isinstance(answer, ConflictError) for answer in answers)

    with closing(new_ledger(path, clock)) as ledger:
        claimed = granted(ledger, "T")
        assert is_bound(ledger)
        ledger.release([claimed])
        assert is_bound(ledger)
        claimed = granted(ledger, "T")
        clock.now_s += LEASE_S
        assert is_bound(ledger)
    with closing(new_ledger(path, clock)) as ledger:
        assert is_bound(ledger)
        claimed = granted(ledger, "T")
        assert ledger.complete([(claimed, signature("S"))]) == [None]
        assert is_bound(ledger)
    with closing(new_ledger(path, clock)) as ledger:
        assert is_bound(ledger)


def test_a_completed_transaction_gives_its_signature_again(path: Path, clock: Clock) -> None:
    """The same claim is answered with an equal signature, also after its lease and after a restart."""
    with closing(new_ledger(path, clock)) as ledger:
        ledger.complete([(granted(ledger, "T"), signature("S"))])
        assert ledger.claim([claim("T")]) == [signature("S")]
        clock.now_s += 10 * LEASE_S
        assert ledger.claim([claim("T")]) == [signature("S")]
    with closing(new_ledger(path, clock)) as ledger:
        assert ledger.claim([claim("T")]) == [signature("S")]


def test_a_claim_is_taken_over_after_its_lease_and_not_before(ledger: SqliteLedger, clock: Clock) -> None:
    """A claim that nobody completed is stuck for no longer than its lease."""
    granted(ledger, "T")
    clock.now_s += LEASE_S - 0.001
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
    clock.now_s += 0.001
    granted(ledger, "T")
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)


def test_a_slow_first_owner_is_fenced_off(ledger: SqliteLedger, clock: Clock) -> None:
    """After a takeover the first owner can neither complete, nor end the lease, nor overwrite the signature."""
    slow = granted(ledger, "T")
    clock.now_s += LEASE_S
    second = granted(ledger, "T")
    assert [type(answer) for answer in ledger.complete([(slow, signature("slow"))])] == [ClaimLostError]
    ledger.release([slow])
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
    assert ledger.complete([(second, signature("second"))]) == [None]
    assert [type(answer) for answer in ledger.complete([(slow, signature("slow"))])] == [ClaimLostError]
    assert ledger.claim([claim("T")]) == [signature("second")]


def test_a_kept_signature_is_never_overwritten(ledger: SqliteLedger) -> None:
    """Even its own owner completes a transaction once only; the others of the batch are not affected."""
    first, other = granted(ledger, "T"), granted(ledger, "U")
    assert ledger.complete([(first, signature("first"))]) == [None]
    answers = ledger.complete([(first, signature("again")), (other, signature("other"))])
    assert [type(answer) for answer in answers] == [ClaimLostError, type(None)]
    ledger.release([first])
    assert ledger.claim([claim("T"), claim("U")]) == [signature("first"), signature("other")]


def test_a_released_claim_can_be_taken_at_once(ledger: SqliteLedger) -> None:
    """Whoever gives up ends the lease; the next claim need not wait and gets a token of its own."""
    first = granted(ledger, "T")
    ledger.release([first])
    second = granted(ledger, "T")
    assert second.token != first.token
    assert [type(answer) for answer in ledger.complete([(first, signature("S"))])] == [ClaimLostError]


def test_leases_of_a_dead_process_end_with_it(path: Path, clock: Clock) -> None:
    """Since nobody else can hold the file, a new process takes unfinished claims over without waiting."""
    with closing(new_ledger(path, clock)) as ledger:
        first = granted(ledger, "T")
    with closing(new_ledger(path, clock)) as ledger:
        granted(ledger, "T")
        assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)
        assert [type(answer) for answer in ledger.complete([(first, signature("S"))])] == [ClaimLostError]


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


def test_concurrent_requests_share_a_commit(path: Path) -> None:
    """Claims of fifteen threads that arrive while a commit waits for the disk are made durable by one further commit."""
    metrics = new_metrics()
    with closing(new_ledger(path, metrics=metrics)) as ledger, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.release([Claimed(claim("none"), "none")])
        wait_until(lambda: ledger._commits.waiting == 0)  # noqa: SLF001 - only the queue knows
        calls = [lambda number=number: ledger.claim([claim(str(number))]) for number in range(15)]
        threads = threading.Thread(target=in_threads, args=(calls,))
        threads.start()
        wait_until(lambda: ledger._commits.waiting == 15)  # noqa: SLF001
        other.execute("ROLLBACK")
        threads.join(PATIENCE_S)
        assert metrics.registry.get_sample_value("signer_commit_group_size_count", {"store": "ledger"}) == 2
        assert metrics.registry.get_sample_value("signer_commit_group_size_sum", {"store": "ledger"}) == 16


def test_a_commit_waits_for_the_disk(ledger: SqliteLedger) -> None:
    """SQLite is told to sync its write-ahead log in every commit."""
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
    for _ in range(3):
        path.unlink(missing_ok=True)
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


def test_the_files_are_private(ledger: SqliteLedger, path: Path) -> None:
    """Only the service's user may read the ledger, its write-ahead log, or its directory."""
    granted(ledger, "T")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == dict.fromkeys(
        [path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}.lock"], 0o600
    )


def test_a_ledger_of_another_version_is_refused(path: Path) -> None:
    """A schema this version does not know is neither read nor changed, and the file is let go."""
    new_ledger(path).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 7")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="schema 7"):
            new_ledger(path)


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    """A path that is not usable keeps the service from starting with the ledger's own error."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(LedgerUnavailableError, match="SQLITE_NOTADB"):
        new_ledger(path)
    with pytest.raises(LedgerUnavailableError, match="Not a directory"):
        new_ledger(path / "ledger.sqlite")


def test_a_closed_ledger_takes_nothing(path: Path) -> None:
    """After closing, claims are refused with the named error; releasing stays silent."""
    ledger = new_ledger(path)
    claimed = granted(ledger, "T")
    ledger.close()
    ledger.release([claimed])
    with pytest.raises(LedgerUnavailableError, match="closed"):
        ledger.claim([claim("T")])
