"""What the tests of the stores on disk share: samples, threads that start together, and programs that can be killed."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from signer import logs
from signer.audit.file import FileAuditLog
from signer.audit.segments import ChainDirectory
from signer.ledger.sqlite import SqliteLedger
from signer.metrics import Metrics
from signer.ports import AuditEntry, Claim, Signature
from signer.settings import LedgerSettings

PATIENCE_S = 20.0
LEASE_S = 120
ROOT = Path(__file__).parents[2]
NOW = datetime(2028, 3, 8, 12, 0, 0, 123456, tzinfo=UTC)

T = TypeVar("T")


def new_metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def entry(number: int, detail: str | None = None) -> AuditEntry:
    """The entry of a signature."""
    return AuditEntry(
        time="2028-03-08T12:00:00.123456Z",
        operation="sign",
        outcome="signed",
        transaction_id=f"TXN-{number}",
        key_handle=7,
        duration_s=0.001234,
        detail=detail,
    )


def chain_directory(
    path: Path, segment_bytes: int = 1 << 20, fsync: Callable[[int], None] = os.fsync
) -> ChainDirectory:
    return ChainDirectory(path, segment_bytes, logs.get("test"), lambda: NOW, fsync)


def new_audit_log(path: Path, timeout_s: float = PATIENCE_S, fsync: Callable[[int], None] = os.fsync) -> FileAuditLog:
    return FileAuditLog(chain_directory(path, fsync=fsync), timeout_s, new_metrics())


def claim(
    transaction_id: str,
    content: bytes = b"content",
    algorithm: str = "RSASSA_PSS_SHA_256",
    key_label: str | None = None,
) -> Claim:
    return Claim("settlement", transaction_id, hashlib.sha256(content).digest(), algorithm, key_label)


def signature(value: str) -> Signature:
    """A signature that is recognised by its `value`."""
    return Signature("RSASSA_PSS_SHA_256", "settlement", "label", "sha256:00", "digest", value, "now", "audit-id")


def new_ledger(
    path: Path,
    wall_clock: Callable[[], float] = time.time,
    timeout_s: float = PATIENCE_S,
    metrics: Metrics | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> SqliteLedger:
    settings = LedgerSettings(path=path, lease_s=LEASE_S, commit_timeout_s=timeout_s)
    return SqliteLedger(path, settings, metrics or new_metrics(), wall_clock, monotonic)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; fail if it never does."""
    never = threading.Event()
    for _ in range(int(PATIENCE_S * 1000)):
        if condition():
            return
        never.wait(0.001)
    raise AssertionError(condition)


def in_threads(calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
    """Make all calls at once, each on a thread of its own; gives what each returned or raised."""
    results: list[T | Exception] = [AssertionError("did not finish")] * len(calls)
    start = threading.Barrier(len(calls))

    def run(index: int) -> None:
        start.wait(PATIENCE_S)
        try:
            results[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - the test judges it
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return results


def start_program(name: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a function of `tests.unit.store_programs` in a process of its own."""
    command = [sys.executable, "-m", "tests.unit.store_programs", name, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


class Clock:
    """A wall clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1_836_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Disk:
    """The real fsync, which says what it did, hangs while held, and fails when told to."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.fail_at: set[int] = set()
        self.error: Exception = OSError(5, "Input/output error")
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def fsync(self, descriptor: int) -> None:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.synced.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        if len(self.synced) in self.fail_at:
            raise self.error
        os.fsync(descriptor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let every fsync hang during the block."""
        self.gate.clear()
        self.entered.clear()
        yield
        self.gate.set()


class CrashError(Exception):
    """The process ends here."""


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(directory.glob("*.jsonl")) for line in file.read_bytes().splitlines()]


def torn_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("torn-*.bin"))


def written(directory: Path, count: int = 3) -> Path:
    """Make a log of `count` records and give its segment."""
    with closing(new_audit_log(directory)) as log:
        log.append([entry(number) for number in range(count)])
    (segment,) = directory.glob("*.jsonl")
    return segment


def append_bytes(file: Path, content: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(content)
