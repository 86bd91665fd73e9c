"""The ledger of a fleet keeps the contract of its port over a real table, whoever else writes to it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any
from uuid import uuid4

import boto3
import pytest

from signer.demo.stack import Emulator
from signer.errors import ClaimInProgressError, ClaimLostError, ConfigurationError, ConflictError
from signer.ledger.dynamodb import DynamodbLedger
from signer.ledger.table import KEY_SCHEMA, find_all
from signer.ports import Claimed
from signer.settings import LedgerSettings
from tests.unit.stores import LEASE_S, claim, new_metrics, signature

RETENTION_S = 30 * 86_400


class Fleet:
    """Processes that share a table and a clock."""

    def __init__(self, emulator: Emulator, stack: ExitStack) -> None:
        self.now_s = 1_800_000_000.0
        self.table = f"ledger-{uuid4().hex[:8]}"
        self._url = emulator.url
        self._stack = stack
        client = stack.enter_context(closing(boto3.client("dynamodb", endpoint_url=emulator.url)))
        schema: Any = KEY_SCHEMA  # literal types of a stub
        client.create_table(
            TableName=self.table,
            KeySchema=schema,
            AttributeDefinitions=[{"AttributeName": each["AttributeName"], "AttributeType": "S"} for each in schema],
            BillingMode="PAY_PER_REQUEST",
        )

    def join(self, table: str | None = None) -> DynamodbLedger:
        """Open the ledger as one more process."""
        name = table or self.table
        settings = LedgerSettings(
            backend="dynamodb", table=name, endpoint_url=self._url, lease_s=LEASE_S, retention_days=30
        )
        ledger = DynamodbLedger(name, settings, new_metrics(), lambda: self.now_s)
        return self._stack.enter_context(closing(ledger))


@pytest.fixture
def fleet(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    # What else reads it in a test is boto3 itself.
    monkeypatch.setenv("AWS_DEFAULT_REGION", emulator.sqs.meta.region_name)
    with ExitStack() as stack:
        yield Fleet(emulator, stack)


@pytest.fixture
def ledger(fleet: Fleet) -> DynamodbLedger:
    return fleet.join()


def granted(ledger: DynamodbLedger, transaction_id: str) -> Claimed:
    """Claim a transaction, which must be granted."""
    (answer,) = ledger.claim([claim(transaction_id)])
    assert isinstance(answer, Claimed)
    return answer


def test_a_claim_is_granted_once(fleet: Fleet, ledger: DynamodbLedger) -> None:
    """Who comes while the lease runs is told so, in whatever process; a signature that is kept is given to all."""
    mine = granted(ledger, "T")
    assert mine.is_first
    (busy,) = fleet.join().claim([claim("T")])
    assert isinstance(busy, ClaimInProgressError)
    assert ledger.complete([(mine, signature("s"))]) == [None]
    kept = fleet.join().claim([claim("T")])
    assert [answer.value for answer in kept if hasattr(answer, "value")] == ["s"]


@pytest.mark.parametrize("completed", [True, False])
def test_another_digest_or_algorithm_is_a_conflict(ledger: DynamodbLedger, *, completed: bool) -> None:
    """Bound is bound, signed or not, and for as long as it is remembered."""
    mine = granted(ledger, "T")
    if completed:
        ledger.complete([(mine, signature("s"))])
    answers = ledger.claim([claim("T", b"other")]) + ledger.claim([claim("T", algorithm="RSASSA_PKCS1_V1_5_SHA_256")])
    assert [type(answer) for answer in answers] == [ConflictError, ConflictError]


def test_a_slow_first_owner_is_fenced_off(fleet: Fleet, ledger: DynamodbLedger) -> None:
    """After its lease another takes over; the first can then neither complete, release nor withdraw, nor overwrite."""
    slow = granted(ledger, "T")
    fleet.now_s += LEASE_S + 1
    second = granted(fleet.join(), "T")
    assert not second.is_first
    ledger.release([slow])
    ledger.withdraw([slow])
    (lost,) = ledger.complete([(slow, signature("slow"))])
    assert isinstance(lost, ClaimLostError)
    assert ledger.complete([(second, signature("second"))]) == [None]
    (lost,) = ledger.complete([(slow, signature("slow"))])
    assert isinstance(lost, ClaimLostError)
    (record,) = find_all(ledger.client, fleet.table, "T")
    assert (record.signature, record.take_overs) == (signature("second"), 1)
    assert [holder.token for holder in record.former] == [slow.token]


def test_what_was_done_already_by_oneself_is_done(ledger: DynamodbLedger) -> None:
    """A completion whose answer was lost is made again; another signature under the same token is not."""
    mine = granted(ledger, "T")
    assert ledger.complete([(mine, signature("s"))]) == [None]
    assert ledger.complete([(mine, signature("s"))]) == [None]
    (lost,) = ledger.complete([(mine, signature("other"))])
    assert isinstance(lost, ClaimLostError)


def test_released_and_withdrawn(ledger: DynamodbLedger) -> None:
    """A lease that was ended may be taken over at once; what was withdrawn may be bound to other content."""
    ledger.release([granted(ledger, "released")])
    assert not granted(ledger, "released").is_first
    ledger.withdraw([granted(ledger, "withdrawn")])
    (answer,) = ledger.claim([claim("withdrawn", b"other")])
    assert isinstance(answer, Claimed)


def test_a_conflict_does_not_fail_its_neighbours(ledger: DynamodbLedger) -> None:
    """Of 250 in three transactions, two are bound to something else: all others are granted."""
    ledger.claim([claim("T-7", b"other"), claim("T-130", b"other")])
    answers = ledger.claim([claim(f"T-{number}") for number in range(250)])
    odd = [number for number, answer in enumerate(answers) if isinstance(answer, ConflictError)]
    assert odd == [7, 130]
    assert sum(isinstance(answer, Claimed) for answer in answers) == 248


def test_what_is_beyond_its_retention_is_forgotten(fleet: Fleet, ledger: DynamodbLedger) -> None:
    """Whether DynamoDB has come to delete it or not."""
    ledger.complete([(granted(ledger, "T"), signature("s"))])
    fleet.now_s += RETENTION_S - 1
    assert not isinstance(ledger.claim([claim("T")])[0], Claimed)
    fleet.now_s += 2
    assert granted(ledger, "T").is_first


def test_of_many_at_once_one_is_granted(fleet: Fleet) -> None:
    """Eight processes claim the same hundred transactions: each transaction is granted exactly once."""
    ledgers = [fleet.join() for _ in range(8)]
    claims = [claim(f"T-{number}") for number in range(100)]

    def claim_all(ledger: DynamodbLedger) -> list[int]:
        return [number for number, answer in enumerate(ledger.claim(claims)) if isinstance(answer, Claimed)]

    with ThreadPoolExecutor(len(ledgers)) as threads:
        won = [number for numbers in threads.map(claim_all, ledgers) for number in numbers]
    assert sorted(won) == list(range(100))


def test_a_table_that_is_not_there_or_another_is_refused(fleet: Fleet, emulator: Emulator) -> None:
    """At start, with what it needs."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        fleet.join("nobodys")
    with closing(boto3.client("dynamodb", endpoint_url=emulator.url)) as client:
        client.create_table(
            TableName="another",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    with pytest.raises(ConfigurationError, match="needs the key transaction_id"):
        fleet.join("another")
