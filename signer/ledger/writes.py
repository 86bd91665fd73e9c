"""Makes conditional writes to DynamoDB: in transactions of up to 100, several at once, each item with its own outcome.

A transaction is all or nothing, and DynamoDB says which of its items stood in the way: those are settled, or set apart,
and the others are tried again without them.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from signer import failpoints
from signer.aws import code_of, may_pass, name_of
from signer.deadlines import Deadline
from signer.errors import LedgerUnavailableError, SignerError
from signer.ledger.items import Item, Write
from signer.metrics import Metrics

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_LARGEST: Final = 100
_FIRST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 1.0
_RANDOM: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold."""

    item: Item | None
    """What stood in the way; None if it was gone."""


class _Again(Enum):
    """What becomes of an item that nothing was decided about."""

    TOGETHER = "it was not its fault"
    APART = "it, or one beside it, keeps a transaction from being made"


Outcome = Refused | SignerError | None
"""None: it is done, and durable."""

_CONFLICTS: Final = frozenset({"TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError"})
# What DynamoDB will never take, and so is asked to take alone: those beside it must not suffer.
_MALFORMED: Final = frozenset({"ValidationException", "SerializationException"})
_POISON: Final = "the ledger's table does not take this transaction"


class Writes:
    """The writes to one table; safe under threads."""

    def __init__(self, client: "DynamoDBClient", table: str, parallel: int, metrics: Metrics) -> None:
        self._client = client
        self._table = table
        self._sizes = metrics.group_size.labels("ledger")
        self._failures = metrics.commit_failures.labels("ledger")
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="ledger")
        self._closed = threading.Event()
        self.healthy = True
        """False from a write that failed until the next that was made."""

    def make(self, writes: Sequence[Write], deadline: Deadline) -> list[Outcome]:
        """Make all of them before `deadline`, and give the outcome of each, in order.

        Raises `LedgerUnavailableError`; which of them were made is unknown then.
        """
        parts = self._begin(writes, deadline)
        outcomes: list[Outcome] = []
        failure: Exception | None = None
        for part in parts:
            # All are waited for, so that nothing is under way any more that the caller does not know of.
            try:
                outcomes += part.result()
            except Exception as error:  # noqa: BLE001 - of whatever kind, nothing is known to be durable
                failure = error
        self.healthy = failure is None
        if failure is not None:
            self._failures.inc()
            unknown = f"the ledger's table failed ({type(failure).__name__})"
            raise LedgerUnavailableError(failure.message if isinstance(failure, SignerError) else unknown) from failure
        return outcomes

    def post(self, writes: Sequence[Write], deadline: Deadline) -> None:
        """Begin them without waiting; if they are lost, nobody is told."""
        with suppress(LedgerUnavailableError):
            self._begin(writes, deadline)

    def close(self) -> None:
        """Finish what was begun, and refuse what comes after."""
        self._closed.set()
        self._threads.shutdown()

    def _begin(self, writes: Sequence[Write], deadline: Deadline) -> list[Future[list[Outcome]]]:
        parts = [writes[start : start + _LARGEST] for start in range(0, len(writes), _LARGEST)]
        try:
            return [self._threads.submit(self._settle, part, deadline) for part in parts]
        except RuntimeError:
            msg = "the ledger is closed"
            raise LedgerUnavailableError(msg) from None

    def _settle(self, writes: Sequence[Write], deadline: Deadline) -> list[Outcome]:
        """Give the outcome of each of up to a hundred writes."""
        outcomes: dict[int, Outcome] = {}
        parcels = deque([list(range(len(writes)))])
        failures = 0
        last_failure = "its turn never came"
        while parcels:
            if not deadline.remaining_s():
                msg = f"the ledger's table did not make it durable in time: {last_failure}"
                raise LedgerUnavailableError(msg)
            parcel = parcels.popleft()
            try:
                self._send([writes[index] for index in parcel])
            except (ClientError, BotoCoreError) as error:
                verdicts = dict(zip(parcel, _judge(error, len(parcel)), strict=True))
                outcomes |= {index: each for index, each in verdicts.items() if not isinstance(each, _Again)}
                parcels += _parcels(verdicts)
                if _is_busy(error):
                    failures, last_failure = failures + 1, name_of(error)
                    _pause(failures, deadline)
            else:
                outcomes |= dict.fromkeys(parcel)
                self._sizes.observe(len(parcel))
        return [outcomes[index] for index in range(len(writes))]

    def _send(self, writes: Sequence[Write]) -> None:
        call = self._call(writes)
        failpoints.reach("ledger_writing", failpoints.cut_short(call))
        call()

    def _call(self, writes: Sequence[Write]) -> Callable[[], object]:
        named: list[tuple[Write, dict[str, Any]]] = [
            (write, {"TableName": self._table, **write.parameters}) for write in writes
        ]
        if len(named) > 1:
            items: Any = [{write.action: parameters} for write, parameters in named]  # unions of a stub
            return lambda: self._client.transact_write_items(TransactItems=items)
        # Half the price of a transaction of one.
        ((write, parameters),) = named
        client = self._client
        calls: Any = {"Put": client.put_item, "Update": client.update_item, "Delete": client.delete_item}
        return lambda: calls[write.action](**parameters)


def _judge(error: ClientError | BotoCoreError, count: int) -> list[Outcome | _Again]:
    """Say what a call that failed means for each of its `count` writes; raises `LedgerUnavailableError`."""
    code = code_of(error)
    response: Mapping[str, Any] = error.response if isinstance(error, ClientError) else {}
    if code == "ConditionalCheckFailedException":
        return [Refused(response.get("Item"))]
    if code == "TransactionCanceledException" and len(response.get("CancellationReasons", ())) == count:
        return [_judge_reason(reason) for reason in response["CancellationReasons"]]
    if code in _MALFORMED:
        return [_Again.APART] * count if count > 1 else [LedgerUnavailableError(_POISON)]
    if may_pass(error):
        return [_Again.TOGETHER] * count
    msg = f"the ledger's table cannot be written: {name_of(error)}"
    raise LedgerUnavailableError(msg) from None


def _judge_reason(reason: Mapping[str, Any]) -> Outcome | _Again:
    code = reason.get("Code", "None")
    if code == "ConditionalCheckFailed":
        return Refused(reason.get("Item"))
    if code == "None":
        return _Again.TOGETHER
    # `ValidationError`, or something unheard of.
    return _Again.APART if code in _CONFLICTS else LedgerUnavailableError(_POISON)


def _is_busy(error: ClientError | BotoCoreError) -> bool:
    """Tell whether the next call should wait a moment."""
    reasons = error.response.get("CancellationReasons", ()) if isinstance(error, ClientError) else ()
    return may_pass(error) or any(reason.get("Code") in _CONFLICTS for reason in reasons)


def _parcels(verdicts: Mapping[int, object]) -> list[list[int]]:
    """Pack what is to be tried again."""
    apart = [index for index, verdict in verdicts.items() if verdict is _Again.APART]
    together = [index for index, verdict in verdicts.items() if verdict is _Again.TOGETHER]
    half = len(apart) // 2
    return [parcel for parcel in (together, apart[:half], apart[half:]) if parcel]


def _pause(failures: int, deadline: Deadline) -> None:
    longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**failures, deadline.remaining_s())
    time.sleep(_RANDOM.uniform(0, longest_s))
