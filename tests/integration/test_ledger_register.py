"""The register tells what the ledger knows, in a file and in a table, by transaction and by digest."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from signer.demo.stack import Emulator
from signer.errors import ClaimInProgressError, ConflictError, DigestNotIndexedError, LedgerUnavailableError
from signer.ledger.claims import FIND_DIGEST
from signer.ledger.register import FileRegister, TableRegister
from signer.ledger.tidying import NEW_NAMES
from signer.ports import Claim, Claimed, SignatureRegister
from signer.settings import LedgerSettings
from tests.integration import ledgers
from tests.integration.ledgers import Ledger, new_table, open_table
from tests.unit.stores import LEASE_S, Clock, claim, new_ledger, signature, wait_until


@dataclass
class Both:
    """A ledger, its register, and the clock of both."""

    ledger: Ledger
    register: SignatureRegister
    clock: Clock


@pytest.fixture(params=["sqlite", "dynamodb"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    clock = Clock()
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite3"
        with closing(new_ledger(path, clock)) as ledger:
            yield Both(ledger, FileRegister(LedgerSettings(path=path), clock), clock)
        return
    emulator: Emulator = request.getfixturevalue("emulator")
    table = new_table(emulator)
    settings = LedgerSettings(backend="dynamodb", table=table, endpoint_url=emulator.url)
    with closing(open_table(emulator.url, table, clock)) as fleet, closing(TableRegister(settings, clock)) as register:
        yield Both(fleet, register, clock)


def named(wanted: Claim, caller: str = "http:somebody") -> Claim:
    return replace(wanted, caller=caller)


def test_it_gives_what_was_claimed_and_signed_and_for_whom(both: Both) -> None:
    """By transaction under every key; by digest every transaction over it."""
    first = ledgers.granted(both.ledger, named(claim("T")))
    both.ledger.complete([(first, signature("s"))])
    ledgers.granted(both.ledger, named(replace(claim("T", b"other"), key_alias="payout")))
    ledgers.granted(both.ledger, named(claim("U")))
    found = {binding.claim.key_alias: binding for binding in both.register.by_transaction("T")}
    assert found.keys() == {"settlement", "payout"}
    assert found["settlement"].claim.caller == "http:somebody"
    assert found["settlement"].signature is not None
    assert found["payout"].signature is None
    by_digest = both.register.by_digest(claim("T").digest)
    assert {binding.claim.transaction_id for binding in by_digest} == {"T", "U"}
    assert both.register.by_digest(bytes(32)) == []


def test_peeking_gives_what_a_claim_would_get_and_claims_nothing(both: Both) -> None:
    """Free, in progress, run out, signed, bound to other content."""
    assert both.register.peek(claim("T")) is None
    held = ledgers.granted(both.ledger, claim("T"))
    assert isinstance(both.register.peek(claim("T")), ClaimInProgressError)
    assert isinstance(both.register.peek(claim("T", b"other")), ConflictError)
    both.clock.now_s += LEASE_S
    assert both.register.peek(claim("T")) is None
    both.ledger.complete([(held, signature("s"))])
    kept = both.register.peek(claim("T"))
    assert kept is not None
    assert kept == both.ledger.claim([claim("T")])[0]
    assert both.register.peek(claim("V")) is None
    assert both.register.by_transaction("V") == []


def test_a_table_without_the_index_cannot_be_asked_by_digest(emulator: Emulator) -> None:
    """A scan would be paid by the item; it says what is missing."""
    table = new_table(emulator, digest_index=False)
    settings = LedgerSettings(backend="dynamodb", table=table, endpoint_url=emulator.url)
    with closing(TableRegister(settings)) as register, pytest.raises(DigestNotIndexedError, match="by-digest"):
        register.by_digest(bytes(32))


def test_a_file_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    """Not an empty answer."""
    register = FileRegister(LedgerSettings(path=tmp_path / "none.sqlite3"))
    with pytest.raises(LedgerUnavailableError):
        register.by_transaction("T")


def test_digests_are_indexed_behind_the_commits(tmp_path: Path) -> None:
    """What is beyond the index is found too; what is forgotten or was withdrawn is not."""
    path = tmp_path / "ledger.sqlite3"
    count = 2 * NEW_NAMES
    with closing(new_ledger(path)) as ledger, closing(sqlite3.connect(path)) as other:
        claims = [claim(f"T-{number}", str(number).encode()) for number in range(count)]
        for start in range(0, count, 256):
            ledger.claim(claims[start : start + 256])

        def indexed() -> int:
            return int(other.execute("SELECT count(*) FROM digests").fetchone()[0])

        wait_until(lambda: indexed() >= NEW_NAMES)
        register = FileRegister(LedgerSettings(path=path), time.time)
        assert indexed() < count
        for wanted in claims[:: count // 16]:
            assert [found.claim for found in register.by_digest(wanted.digest)] == [wanted]
        (extra,) = ledger.claim([claim("extra", b"extra")])
        assert [found.claim.transaction_id for found in register.by_digest(claim("x", b"extra").digest)] == ["extra"]
        assert isinstance(extra, Claimed)
        ledger.withdraw([extra])
        wait_until(lambda: register.by_digest(claim("x", b"extra").digest) == [])


def test_a_search_by_digest_reads_no_more_of_a_large_ledger(tmp_path: Path) -> None:
    """SQLite's plan names the index for what is indexed, and the row numbers for the rest."""
    path = tmp_path / "ledger.sqlite3"
    with closing(new_ledger(path)), closing(sqlite3.connect(path)) as other:
        plan = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {FIND_DIGEST}", (bytes(32), 100))]
    assert not [step for step in plan if step.startswith("SCAN") and "digests_indexed" not in step]
    assert any("SEARCH digests USING PRIMARY KEY (digest=?)" in step for step in plan)
    assert any("SEARCH claims USING INTEGER PRIMARY KEY (rowid>?)" in step for step in plan)
