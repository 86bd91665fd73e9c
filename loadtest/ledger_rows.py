"""Prints what a million rows cost the embedded ledger: `python -m loadtest.ledger_rows`.

A ledger with a thousand rows and one with a million are measured in turns, in one process, on one disk, so that
whatever else the machine does meets them alike. Ids come in no order, which is the worst that callers can do.
"""

import argparse
import json
import secrets
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from loadtest.stopping import clean_up_at_sigterm
from signer.ledger.sqlite import SqliteLedger
from signer.ledger.tidying import NEW_NAMES
from signer.metrics import Metrics
from signer.ports import Claim, Claimed, Signature
from signer.settings import LedgerSettings

Times = dict[str, list[float]]
"""Milliseconds, by what was timed."""

_FEW: Final = 1000
_PORTION: Final = 50_000
_ALIAS: Final = "settlement"
_ALGORITHM: Final = "RSASSA_PKCS1_V1_5_SHA_256"
_FILL_CLAIMS: Final = """
    INSERT INTO claims (transaction_id, key_alias, digest, algorithm, token, opening, claimed_at, lease_expires_at,
        signature, completed_at)
    VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)
"""
_FILL_NAMES: Final = """
    INSERT INTO {} SELECT transaction_id, key_alias, number FROM claims WHERE number {} ? ORDER BY 1, 2
"""


def main() -> None:
    """Fill two ledgers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; a temporary one if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        many, few = Path(directory) / "many" / "ledger.sqlite3", Path(directory) / "few" / "ledger.sqlite3"
        fill(many, arguments.rows)
        fill(few, _FEW)
        of_many, of_few = compare(many, few, arguments.rounds, arguments.batch)
    print_line("ms", f"{_FEW:,} rows", f"{arguments.rows:,} rows", "ratio of medians", "of means")
    for what, times in of_many.items():
        figures = [statistics.median(of_few[what]), statistics.median(times)]
        means = statistics.mean(times) / statistics.mean(of_few[what])
        print_line(what, *(f"{each:.2f}" for each in figures), f"{figures[1] / figures[0]:.2f}", f"{means:.2f}")


def fill(path: Path, rows: int) -> None:
    """Make a ledger of completed transactions, with the names folded that will be."""
    with opened(path):
        pass
    now, kept = time.time(), json.dumps(new_signature().to_message())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for start in range(0, rows, _PORTION):
            values = [
                (new_id(), _ALIAS, secrets.token_bytes(32), _ALGORITHM, secrets.token_hex(16), now, now, kept, now)
                for _ in range(min(_PORTION, rows - start))
            ]
            connection.execute("BEGIN")
            connection.executemany(_FILL_CLAIMS, values)
            connection.execute("COMMIT")
        for index, which in (("names", "<="), ("new_names", ">")):
            connection.execute(_FILL_NAMES.format(index, which), (rows - NEW_NAMES,))


def compare(many: Path, few: Path, rounds: int, batch: int) -> tuple[Times, Times]:
    """Measure both once a round; the small one is the same small one in each."""
    of_many: Times = {}
    of_few: Times = {}
    base = few.with_name("base")
    few.rename(base)
    with opened(many) as large:
        for _ in range(rounds):
            # Some 5,000 transactions a second: as much as an HSM cluster signs.
            time.sleep(batch / 5000)
            shutil.copy(base, few)
            with opened(few) as small:
                measure(small, 1, {})
                measure(small, batch, of_few)
            measure(large, batch, of_many)
    return of_many, of_few


def measure(ledger: SqliteLedger, batch: int, times: Times) -> None:
    """Time one batch through its life, and one transaction through its own."""
    for size in (batch, 1):
        claims = [Claim(_ALIAS, new_id(), secrets.token_bytes(32), _ALGORITHM) for _ in range(size)]
        with timed(times, f"claim {size}"):
            answers = ledger.claim(claims)
        results = [(answer, new_signature()) for answer in answers if isinstance(answer, Claimed)]
        with timed(times, f"complete {size}"):
            ledger.complete(results)
        with timed(times, f"replay {size}"):
            ledger.claim(claims)


@contextmanager
def opened(path: Path) -> Iterator[SqliteLedger]:
    """Open a ledger as the service does."""
    with closing(SqliteLedger(path, LedgerSettings(path=path), Metrics(CollectorRegistry()), time.time)) as ledger:
        yield ledger


@contextmanager
def timed(times: Times, what: str) -> Iterator[None]:
    """Note how long the block takes."""
    began_s = time.perf_counter()
    yield
    times.setdefault(what, []).append((time.perf_counter() - began_s) * 1000)


def new_id() -> str:
    """Give an id that nobody gave before."""
    return f"TXN-{secrets.token_hex(8)}"


def new_signature() -> Signature:
    """Give a signature as large as a real one."""
    label, key, value = "prod-settlement-key-2028", f"sha256:{secrets.token_hex(32)}", secrets.token_hex(172)
    return Signature(_ALGORITHM, _ALIAS, label, key, "d" * 44, value, "2028-03-08T12:00:00.123456Z", "a" * 36)


def print_line(*cells: str) -> None:
    """Print one line of the table now."""
    sys.stdout.write("".join(f"{cell:<18}" for cell in cells) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    clean_up_at_sigterm()
    main()
