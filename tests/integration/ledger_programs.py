"""Processes of a fleet that share one table.

python -m tests.integration.ledger_programs NAME URL TABLE LEASE_S ARGUMENTS
"""

import hashlib
import json
import sys
import time
from contextlib import closing
from typing import Any

from signer.ledger.dynamodb import DynamodbLedger
from signer.ports import Claimed
from tests.integration.ledgers import open_table
from tests.unit.stores import claim, signature


def say(**members: object) -> None:
    """Print one JSON line, at once."""
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def hear() -> Any:
    """Wait for a line on stdin."""
    return json.loads(sys.stdin.readline())


def race(ledger: DynamodbLedger, owner: str, count: str) -> None:
    """Claim and complete what all the others claim too, in batches of another order; say what was granted."""
    names = [f"T-{number}" for number in range(int(count))]
    names.sort(key=lambda name: hashlib.sha256(f"{owner} {name}".encode()).digest())
    say(ready=True)
    hear()
    granted = []
    for start in range(0, len(names), 150):
        answers = ledger.claim([claim(name) for name in names[start : start + 150]])
        mine = [answer for answer in answers if isinstance(answer, Claimed)]
        lost = ledger.complete([(one, signature(owner)) for one in mine])
        assert lost == [None] * len(mine)
        granted += [one.claim.transaction_id for one in mine]
    say(granted=granted)


def own(ledger: DynamodbLedger, owner: str) -> None:
    """Claim one transaction, and complete it when told to."""
    (answer,) = ledger.claim([claim("T")])
    say(granted=isinstance(answer, Claimed))
    hear()
    assert isinstance(answer, Claimed)
    ledger.release([answer])
    ledger.withdraw([answer])
    (error,) = ledger.complete([(answer, signature(owner))])
    say(error=error and error.code)


if __name__ == "__main__":
    name, url, table, lease_s, *arguments = sys.argv[1:]
    with closing(open_table(url, table, time.time, lease_s=float(lease_s))) as opened:
        globals()[name](opened, *arguments)
