"""The ledger in a table, where it differs from a file: transactions that fail as a whole, TTL, what it costs."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from signer.demo.stack import Emulator
from signer.errors import (
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    LedgerUnavailableError,
)
from signer.ledger.dynamodb import DynamodbLedger
from signer.ledger.table import find_all
from signer.ports import Claim, Claimed, Signature
from tests.integration.ledgers import MANY, all_granted, granted, new_table, open_table
from tests.unit.stores import LEASE_S, Clock, claim, signature

RETENTION_S = 30 * 86_400


def test_what_was_done_already_by_oneself_is_done(ledger: DynamodbLedger) -> None:
    """A completion that is made again is made; another signature under the same token is not kept."""
    mine = granted(ledger, claim("T"))
    assert ledger.complete([(mine, signature("s"))]) == [None]
    assert ledger.complete([(mine, signature("s"))]) == [None]
    (lost,) = ledger.complete([(mine, signature("other"))])
    assert isinstance(lost, ClaimLostError)


def test_a_conflict_does_not_fail_its_neighbours(ledger: DynamodbLedger) -> None:
    """Of 250 in three transactions, two are bound to something else: all others are granted."""
    ledger.claim([claim("T-7", b"other"), claim("T-130", b"other")])
    answers = ledger.claim(MANY)
    odd = [number for number, answer in enumerate(answers) if isinstance(answer, ConflictError)]
    assert odd == [7, 130]
    assert sum(isinstance(answer, Claimed) for answer in answers) == 248


def test_what_the_table_never_takes_does_not_fail_its_neighbours(ledger: DynamodbLedger) -> None:
    """DynamoDB refuses the whole request for an empty name in it; only that claim is answered with an error."""
    answers = ledger.claim([*MANY[:60], claim(""), *MANY[60:]])
    assert isinstance(answers[60], LedgerUnavailableError)
    assert sum(isinstance(answer, Claimed) for answer in answers) == len(MANY)


def test_of_many_that_take_over_one_is_granted(emulator: Emulator, table: str, clock: Clock) -> None:
    """Eight find the same hundred leases run out: each claim is taken over exactly once."""
    with ExitStack() as stack:
        fleet = [stack.enter_context(closing(open_table(emulator.url, table, clock))) for _ in range(8)]
        claims = MANY[:100]
        all_granted(fleet[0], claims)
        clock.now_s += LEASE_S

        def take_all(ledger: DynamodbLedger) -> list[Claimed]:
            return [answer for answer in ledger.claim(claims) if isinstance(answer, Claimed)]

        with ThreadPoolExecutor(len(fleet)) as threads:
            won = [one for each in threads.map(take_all, fleet) for one in each]
        assert len({one.claim.transaction_id for one in won}) == len(won) == len(claims)
        assert not any(one.is_first for one in won)


def test_what_is_beyond_its_retention_is_forgotten(
    emulator: Emulator, table: str, ledger: DynamodbLedger, clock: Clock
) -> None:
    """Whether DynamoDB has come to delete it or not: for who claims it, and for who held it."""
    ledger.complete([(granted(ledger, claim("signed")), signature("s"))])
    held = granted(ledger, claim("held"))
    clock.now_s += RETENTION_S - 1
    assert ledger.claim([claim("signed")]) == [signature("s")]
    clock.now_s += 2
    (late,) = ledger.complete([(held, signature("late"))])
    assert isinstance(late, ClaimLostError)
    for name in ("signed", "held"):
        assert granted(ledger, claim(name, b"other")).is_first
    (record,) = find_all(emulator.dynamodb, table, "signed", clock())
    assert record.signature is None
    assert record.former == ()


def test_something_else_in_the_table_is_no_claim(emulator: Emulator, table: str, ledger: DynamodbLedger) -> None:
    """An item that the service did not write is neither taken over nor trusted, and fails nothing beside it."""
    emulator.dynamodb.put_item(
        TableName=table, Item={"transaction_id": {"S": "T-1"}, "key_alias": {"S": "settlement"}, "odd": {"S": ""}}
    )
    answers = ledger.claim(MANY[:3])
    assert [type(answer) for answer in answers] == [Claimed, LedgerUnavailableError, Claimed]


@pytest.mark.parametrize(("count", "units_each"), [(1, 1), (250, 2)])
def test_a_transaction_costs_as_little_as_it_can(emulator: Emulator, clock: Clock, count: int, units_each: int) -> None:
    """With the longest id and an ordinary key, claim and completion stay below the 1,024 bytes of one write unit."""
    with closing(open_table(emulator.url, new_table(emulator, digest_index=False), clock)) as ledger:
        units = _count_units(ledger)
        claims = [replace(one, transaction_id=f"{one.transaction_id:X<64}") for one in MANY[:count]]
        mine = all_granted(ledger, claims)
        assert sum(units) == count * units_each
        ledger.complete([(one, _real_signature(one.claim)) for one in mine])
        assert sum(units) == 2 * count * units_each


@pytest.mark.parametrize("count", [1, 250])
def test_an_index_of_digests_costs_one_unit_more(ledger: DynamodbLedger, count: int) -> None:
    """For each claim, as its documentation says."""
    units = _count_units(ledger)
    all_granted(ledger, MANY[:count])
    assert sum(units) == count * (2 if count == 1 else 3)


def test_after_close_there_is_no_ledger(ledger: DynamodbLedger) -> None:
    """What comes later is refused; what is released, in silence."""
    mine = granted(ledger, claim("T"))
    ledger.close()
    ledger.release([mine])
    with pytest.raises(LedgerUnavailableError, match="closed"):
        ledger.claim([claim("U")])


def test_the_documented_table_is_the_one_it_needs(emulator: Emulator, clock: Clock) -> None:
    """What docs/ledger.md tells operators to make, letter by letter."""
    text = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    documented = json.loads(block)
    name = f"documented-{uuid4().hex}"
    emulator.dynamodb.create_table(**{**documented, "TableName": name})
    with closing(open_table(emulator.url, name, clock)) as ledger:
        granted(ledger, claim("T"))


def test_a_table_that_is_not_there_or_another_is_refused(emulator: Emulator, clock: Clock) -> None:
    """At start, with what it needs."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        open_table(emulator.url, "nobodys", clock)
    another = f"another-{uuid4().hex}"
    emulator.dynamodb.create_table(
        TableName=another,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with pytest.raises(ConfigurationError, match="needs the key transaction_id"):
        open_table(emulator.url, another, clock)


def _count_units(ledger: DynamodbLedger) -> list[float]:
    """Let every call say what it cost, from now on."""
    units: list[float] = []

    def ask(params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def hear(parsed: dict[str, Any], **_: object) -> None:
        told = parsed["ConsumedCapacity"]
        units.extend(each["CapacityUnits"] for each in (told if isinstance(told, list) else [told]))

    ledger.client.meta.events.register("provide-client-params.dynamodb", ask)
    ledger.client.meta.events.register("after-call.dynamodb", hear)
    return units


def _real_signature(claimed: Claim) -> Signature:
    digest, value = (base64.b64encode(content).decode() for content in (claimed.digest, bytes(256)))
    label, key = "prod-settlement-key-2028", f"sha256:{'0' * 64}"
    return Signature(
        claimed.algorithm, claimed.key_alias, label, key, digest, value, "2028-03-08T12:00:00.123456Z", "a" * 36
    )
