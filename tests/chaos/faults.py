"""What goes wrong between the service and AWS: each kind is something that a call meets at the proxy."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.chaos.proxy import Exchange, Fault, Proxy, nothing
from tests.chaos.wire import answer, refusal

_LONGEST_HANG_S: Final = 30.0
_LONGEST_WAIT_S: Final = 5.0
HEARTBEAT: Final = "ChangeMessageVisibilityBatch"
_SLOW_S: Final = 2.0
_THROTTLED: Final = {
    "AmazonSQS": (400, "RequestThrottled"),
    "DynamoDB": (400, "ProvisionedThroughputExceededException"),
}


async def reset(exchange: Exchange) -> None:
    """The connection breaks off before AWS has heard of it."""
    exchange.reset()


async def hung(exchange: Exchange) -> None:
    """Nobody ever answers, and nothing was done."""
    await exchange.client_gone(_LONGEST_HANG_S)
    exchange.reset()


async def answer_lost(exchange: Exchange) -> None:
    """It is done, but nobody hears of it."""
    await exchange.pass_on()
    exchange.reset()


async def lease_lost(exchange: Exchange) -> None:
    """The messages it is about are visible again, and AWS says so."""
    asked = exchange.request.parameters
    for entry in asked["Entries"]:
        visible = {"QueueUrl": asked["QueueUrl"], "ReceiptHandle": entry["ReceiptHandle"], "VisibilityTimeout": 0}
        await exchange.ask("ChangeMessageVisibility", visible)
    failed = [{"Id": entry["Id"], "Code": "MessageNotInflight", "SenderFault": True} for entry in asked["Entries"]]
    await exchange.answer(answer(200, {"Successful": [], "Failed": failed}))


def slow(seconds: float) -> Fault:
    """AWS takes its time."""

    async def wait(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await nothing(exchange)

    return wait


def refused_with(status: int, code: str) -> Fault:
    """AWS answers that it does nothing."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(refusal(exchange.request, status, code))

    return refuse


async def throttled(exchange: Exchange) -> None:
    """AWS has too much to do, and says so in the words of each service."""
    service = exchange.request.header("x-amz-target").partition(".")[0].partition("_")[0]
    status, code = _THROTTLED.get(service, (503, "SlowDown"))
    await exchange.answer(refusal(exchange.request, status, code))


def stopped(stop: Callable[[], None], *, done_first: bool) -> Fault:
    """The process is stopped by `stop`, while it waits for the answer or (`done_first`) after the thing was done."""

    async def hold(exchange: Exchange) -> None:
        if done_first:
            done = await exchange.pass_on()
            stop()
            await exchange.answer(done)
        else:
            stop()
            await nothing(exchange)

    return hold


_QUEUE: Final = ("ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch")
_STORE: Final = ("GetObject", "PutObject")
LEDGER: Final = ("TransactWriteItems", "UpdateItem", "PutItem")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault, and the operations that it may happen to."""

    fault: Fault
    operations: tuple[str, ...]


ANY: Final = (*_QUEUE, *_STORE, *LEDGER)
KINDS: Final[Mapping[str, Kind]] = {
    "reset": Kind(reset, ANY),
    "hung": Kind(hung, ANY),
    "slow": Kind(slow(_SLOW_S), ANY),
    "http_500": Kind(refused_with(500, "InternalError"), ANY),
    "http_503": Kind(refused_with(503, "ServiceUnavailable"), ANY),
    "throttled": Kind(throttled, ANY),
    "answer_lost": Kind(answer_lost, ("SendMessageBatch", "DeleteMessageBatch", "PutObject", *LEDGER)),
    "lease_lost": Kind(lease_lost, (HEARTBEAT, "DeleteMessageBatch")),
}
"""Beside these there is `refused`, which meets a connection and no call: `Proxy.refusing`."""


def held_for_heartbeat(proxy: Proxy, fault: Fault) -> Fault:
    """Hold a call until `fault` has met the next heartbeat, or none has come for long enough."""

    async def hold(exchange: Exchange) -> None:
        beaten = asyncio.Event()

        async def beat(heartbeat: Exchange) -> None:
            await fault(heartbeat)
            beaten.set()

        strike = proxy.next(HEARTBEAT, beat)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(beaten.wait(), _LONGEST_WAIT_S)
        proxy.withdraw(strike)
        await nothing(exchange)

    return hold
