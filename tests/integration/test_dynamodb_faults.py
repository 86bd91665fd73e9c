"""The ledger in a table while AWS is in trouble: what was done is found out, what may pass is waited out."""

from contextlib import closing
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError

from signer.demo.stack import Emulator
from signer.errors import (
    ClaimInProgressError,
    LedgerUnavailableError,
)
from signer.ledger.dynamodb import DynamodbLedger
from signer.ports import Claimed
from tests.integration.aws_faults import AwsFaults, Call
from tests.integration.ledgers import MANY, all_granted, granted, open_table
from tests.unit.stores import LEASE_S, Clock, claim, signature


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
    with closing(open_table(emulator.url, table, clock, commit_timeout_s=1.5)) as ledger:
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


def _refusal(call: Call, status: int, code: str) -> AWSResponse:
    return call.answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "refused by a test"})


def _do_and_lose(call: Call) -> AWSResponse:
    call.send()
    raise ConnectionClosedError(endpoint_url=call.request.url)
