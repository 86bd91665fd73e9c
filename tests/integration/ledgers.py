"""Both ledgers behind one door, for what every ledger must do; and a clock that moves when told to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from signer.demo.stack import Emulator
from signer.ledger.dynamodb import DynamodbLedger
from signer.ledger.sqlite import SqliteLedger
from signer.ports import Claim, Claimed
from signer.settings import LedgerSettings
from tests.unit.stores import LEASE_S, Clock, claim, new_ledger, new_metrics

Ledger = SqliteLedger | DynamodbLedger
TIMEOUT_S = 20.0
MANY = [claim(f"T-{number}") for number in range(250)]
"""Three transactions of the table."""


@dataclass
class Place:
    """Where one ledger lies: a file, or a table."""

    open: Callable[[], Ledger]
    clock: Clock = field(default_factory=Clock)


def on_disk(path: Path) -> Place:
    clock = Clock()
    return Place(lambda: new_ledger(path, clock), clock)


def in_table(emulator: Emulator, **changes: float) -> Place:
    table, clock = new_table(emulator), Clock()
    return Place(lambda: open_table(emulator.url, table, clock, **changes), clock)


def new_table(emulator: Emulator, *, digest_index: bool = True) -> str:
    return emulator.create_table(f"ledger-{uuid4().hex}", digest_index=digest_index)


def open_table(url: str, table: str, wall_clock: Callable[[], float], **changes: float) -> DynamodbLedger:
    """Open a table as the service does; settings that suit a test are arguments."""
    values = {"lease_s": LEASE_S, "commit_timeout_s": TIMEOUT_S, **changes}
    settings = LedgerSettings(backend="dynamodb", table=table, endpoint_url=url, **values)
    return DynamodbLedger(table, settings, new_metrics(), wall_clock)


def granted(ledger: Ledger, wanted: Claim) -> Claimed:
    """Claim a transaction that is free."""
    (answer,) = ledger.claim([wanted])
    assert isinstance(answer, Claimed), answer
    return answer


def all_granted(ledger: DynamodbLedger, claims: list[Claim]) -> list[Claimed]:
    answers = [answer for answer in ledger.claim(claims) if isinstance(answer, Claimed)]
    assert len(answers) == len(claims)
    return answers
