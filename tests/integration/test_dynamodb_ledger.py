"""The ledger in a table, where it differs from a file: transactions that fail as a whole, AWS in trouble, TTL."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError

from signer.demo.stack import Emulator
from signer.errors import (
    ClaimInProgressError,
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    LedgerUnavailableError,
)
from signer.ledger.dynamodb import DynamodbLedger
from signer.ledger.table import find_all
from signer.ports import Claim, Claimed, Signature
from tests.integration.aws_faults import AwsFaults, Call
from tests.integration.ledgers import granted, new_table, open_table
from tests.unit.stores import LEASE_S, Clock, claim, signature

RETENTION_S = 30 * 86_400
MANY = [claim(f"T-{number}") for number in range(250)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(emulator: Emulator) -> str:
    return new_table(emulator)


@pytest.fixture
def ledger(emulator: Emulator, table: str, clock: Clock) -> Iterator[DynamodbLedger]:
    with closing(open_table(emulator.url, table, clock, retention_days=30)) as opened:
        yield opened


@pytest.fixture
def faults(ledger: DynamodbLedger) -> AwsFaults:
    return AwsFaults(ledger.client)


def all_granted(ledger: DynamodbLedger, claims: list[Claim]) -> list[Claimed]:
    answers = [answer for answer in ledger.claim(claims) if isinstance(answer, Claimed)]
    assert len(answers) == len(claims)
    return answers


def test_what_was_done_already_by_oneself_is_done(ledger: DynamodbLedger) -> None:
    """A completion that is made again is made; another signature under the same token is not kept."""
    mine = granted(ledger, claim("T"))
    assert ledger.complete([(mine, signature("s"))]) == [None]
    assert ledger.complete([(mine, signature("s"))]) == [None]
    (lost,) = ledger.complete([(mine, signature("other"))])
    assert isinstance(lost, ClaimLostError)


@pytest.mark.parametrize("count", [1, 250])
def test_answers_that_are_lost_are_found_out(ledger: DynamodbLedger, faults: AwsFaults, count: int) -> None:
    """Whatever was done without an answer was done by this call, and is granted as if it had been heard of."""
    claims = MANY[:count]
    put, update = ("PutItem", "UpdateItem") if count == 1 else ("TransactWriteItems", "TransactWriteItems")
    with faults.first(2, put, _do_and_lose):
        mine = all_granted(ledger, claims)
    assert all(one.is_first for one in mine)
    with faults.first(2, update, _do_and_lose):
        assert ledger.complete([(one, signature("s")) for one in mine]) == [None] * count
    assert ledger.claim(claims) == [signature("s")] * count


def test_a_take_over_whose_answer_is_lost_is_found_out(ledger: DynamodbLedger, faults: AwsFaults, clock: Clock) -> None:
    """It counts as a take-over then, too: nobody may withdraw it."""
    granted(ledger, claim("T"))
    clock.now_s += LEASE_S
    with faults.first(1, "UpdateItem", _do_and_lose):
        second = granted(ledger, claim("T"))
    assert len(faults.of("UpdateItem")) == 2
    assert not second.is_first


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (400, "RequestLimitExceeded"),
        (400, "TransactionInProgressException"),
        (500, "InternalServerError"),
        (503, "ServiceUnavailable"),
    ],
)
def test_what_may_pass_is_waited_out(ledger: DynamodbLedger, faults: AwsFaults, status: int, code: str) -> None:
    """Each transaction is asked for again until AWS takes it."""
    with faults.first(6, "TransactWriteItems", lambda call: _refusal(call, status, code)):
        all_granted(ledger, MANY)
    assert len(faults.of("TransactWriteItems")) == 9
    assert ledger.healthy


def test_connections_that_break_are_made_again(ledger: DynamodbLedger, faults: AwsFaults) -> None:
    """Reset before AWS heard of it."""

    def reset(call: Call) -> AWSResponse:
        raise ConnectionClosedError(endpoint_url=call.request.url)

    with faults.first(3, "PutItem", reset):
        granted(ledger, claim("T"))
    assert len(faults.of("PutItem")) == 4


def test_waiting_ends_with_the_time_of_a_commit(emulator: Emulator, table: str, clock: Clock) -> None:
    """Throttled for good, the ledger says so, and is healthy again with the next write; it keeps nobody waiting."""
    with closing(open_table(emulator.url, table, clock, commit_timeout_s=0.5)) as ledger:
        faults = AwsFaults(ledger.client)
        with faults.refused("TransactWriteItems", "ThrottlingException"):
            with pytest.raises(LedgerUnavailableError, match="ThrottlingException"):
                ledger.claim(MANY)
            assert not ledger.healthy
            with pytest.raises(LedgerUnavailableError):
                ledger.complete([(Claimed(one, "token"), signature("s")) for one in MANY])
            ledger.release([Claimed(one, "token") for one in MANY])
        granted(ledger, claim("other"))
        assert ledger.healthy


def test_what_will_not_pass_is_not_waited_for(ledger: DynamodbLedger, faults: AwsFaults) -> None:
    """Access denied is told at once, with AWS's code and not its words."""
    with (
        faults.refused("PutItem", "AccessDeniedException"),
        pytest.raises(LedgerUnavailableError, match=r"cannot be written: AccessDeniedException$"),
    ):
        ledger.claim([claim("T")])
    assert len(faults.of("PutItem")) == 1


def test_what_is_bound_by_a_claim_that_failed_is_released(
    emulator: Emulator, table: str, ledger: DynamodbLedger, faults: AwsFaults, clock: Clock
) -> None:
    """One part fails and the others were made: the next try need not wait for their leases."""
    with (
        faults.first(1, "TransactWriteItems", lambda call: _refusal(call, 400, "AccessDeniedException")),
        pytest.raises(LedgerUnavailableError),
    ):
        ledger.claim(MANY)
    ledger.close()
    with closing(open_table(emulator.url, table, clock)) as another:
        assert sum(not one.is_first for one in all_granted(another, MANY)) in (150, 200)


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


def test_transactions_that_meet_are_made_again_without_each_other(ledger: DynamodbLedger, faults: AwsFaults) -> None:
    """Two items are in somebody else's hands at this moment: they are asked for apart, and the others not again."""

    def meet(call: Call) -> AWSResponse:
        reasons: list[dict[str, Any]] = [{"Code": "None"} for _ in call.parameters["TransactItems"]]
        reasons[3] = {"Code": "TransactionConflict"}
        reasons[5] = {"Code": "ThrottlingError"}
        body = {"__type": "TransactionCanceledException", "CancellationReasons": reasons}
        return call.answer(400, body)

    with faults.first(1, "TransactWriteItems", meet):
        all_granted(ledger, MANY[:100])
    assert [len(call.parameters["TransactItems"]) for call in faults.of("TransactWriteItems")] == [100, 98]
    assert len(faults.of("PutItem")) == 2


def test_a_lease_that_was_made_longer_meanwhile_is_not_taken_over(
    emulator: Emulator, table: str, ledger: DynamodbLedger, faults: AwsFaults, clock: Clock
) -> None:
    """The lease is compared where it lies, at the moment of the write, and not where it was read."""
    granted(ledger, claim("T"))
    clock.now_s += LEASE_S

    def extend() -> None:
        emulator.dynamodb.update_item(
            TableName=table,
            Key={"transaction_id": {"S": "T"}, "key_alias": {"S": "settlement"}},
            UpdateExpression="SET lease_expires_at = :later",
            ExpressionAttributeValues={":later": {"N": str(clock.now_s + LEASE_S)}},
        )

    faults.before("UpdateItem", extend)
    assert isinstance(ledger.claim([claim("T")])[0], ClaimInProgressError)


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
def test_a_transaction_costs_as_little_as_it_can(ledger: DynamodbLedger, count: int, units_each: int) -> None:
    """With the longest id and an ordinary key, claim and completion stay below the 1,024 bytes of one write unit."""
    units = _count_units(ledger)
    claims = [replace(one, transaction_id=f"{one.transaction_id:X<64}") for one in MANY[:count]]
    mine = all_granted(ledger, claims)
    assert sum(units) == count * units_each
    ledger.complete([(one, _real_signature(one.claim)) for one in mine])
    assert sum(units) == 2 * count * units_each


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


def _refusal(call: Call, status: int, code: str) -> AWSResponse:
    return call.answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "refused by a test"})


def _do_and_lose(call: Call) -> AWSResponse:
    call.send()
    raise ConnectionClosedError(endpoint_url=call.request.url)


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
