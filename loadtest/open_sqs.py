"""The queues as an entrance for an open loop: settlement batches go in, and each is waited for until it comes out.

A batch is timed until this program has received it: with the queue's own delays, for that is what callers wait.
"""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from loadtest.messages import ALIAS, Book, batch_body
from loadtest.tally import Tally
from loadtest.verifier import Verifier

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MOST_IN_A_CALL: Final = 10
_SENDERS: Final = 8
_RECEIVERS: Final = 2


@dataclass(frozen=True, slots=True)
class SqsTarget:
    """Where to put batches, and where they come out; nobody else may take from there."""

    sqs: "SQSClient"
    inbound_url: str
    outbound_url: str
    key: str = ALIAS
    size: int = 25
    """Transactions of a batch."""
    timeout_s: float = 60.0


@dataclass(slots=True)
class _Waiting:
    names: list[str]
    out: asyncio.Future[None]


class SqsDriver:
    """Sends batches, and waits for them."""

    def __init__(self, target: SqsTarget, book: Book, verifier: Verifier, prefix: str) -> None:
        self.size = target.size
        self._target, self._book, self._verifier, self._prefix = target, book, verifier, prefix
        self._under_way: dict[str, _Waiting] = {}
        self._message_ids: set[str] = set()
        self._senders = ThreadPoolExecutor(_SENDERS, "send")
        self._over = threading.Event()
        self._receivers: list[threading.Thread] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._receivers = [threading.Thread(target=self._receive, args=(loop,)) for _ in range(_RECEIVERS)]
        for thread in self._receivers:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._receivers:
            await asyncio.to_thread(thread.join)
        self._senders.shutdown()
        await asyncio.sleep(0)  # what they handed over last

    async def send(self, tally: Tally, intended_s: float) -> None:
        """Send one batch, wait until it comes out, and note what came of it."""
        loop = asyncio.get_running_loop()
        transactions = [self._book.take(self._prefix) for _ in range(self.size)]
        names = [name for name, _ in transactions]
        batch_id = f"B-{names[0]}"
        for name, page in transactions:
            self._verifier.send(name, page.digest)
        waiting = self._under_way[batch_id] = _Waiting(names, loop.create_future())
        body = batch_body(batch_id, transactions, self._target.key)
        began = loop.create_future()
        try:
            sent = loop.run_in_executor(self._senders, self._put, body, began)
            tally.start(intended_s, await began)
            await sent
            await asyncio.wait_for(waiting.out, self._target.timeout_s)
        except (BotoCoreError, ClientError, TimeoutError, asyncio.CancelledError) as error:
            tally.fail(type(error).__name__)
            for name in names:
                self._verifier.give_up(name)
            return
        tally.finish(intended_s)

    def _put(self, body: str, began: asyncio.Future[float]) -> None:
        # The generator is late by as long as a batch waited for one of these threads, too.
        began.get_loop().call_soon_threadsafe(_settle, began, time.perf_counter())
        self._target.sqs.send_message(QueueUrl=self._target.inbound_url, MessageBody=body)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        sqs, url = self._target.sqs, self._target.outbound_url
        over = False
        while not over:
            # Once more after the end, so that a copy which nobody waits for is found.
            over = self._over.is_set()
            try:
                answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_MOST_IN_A_CALL, WaitTimeSeconds=1)
                if messages := answer.get("Messages", []):
                    over = False
                    loop.call_soon_threadsafe(self._take_all, messages)
                    gone: list[Any] = [
                        {"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]} for at, each in enumerate(messages)
                    ]
                    sqs.delete_message_batch(QueueUrl=url, Entries=gone)
            except (BotoCoreError, ClientError):
                self._over.wait(1.0)

    def _take_all(self, messages: list[Any]) -> None:
        for message in messages:
            # The queue may deliver a message again after it was deleted: that is no second message.
            if message["MessageId"] not in self._message_ids:
                self._message_ids.add(message["MessageId"])
                self._take(message["Body"])

    def _take(self, body: str) -> None:
        """Match what came out with what went in, item by item; what came twice goes to the proof too."""
        try:
            batch = json.loads(body)
            items = [(item["transaction_id"], item.get("signature")) for item in batch["transactions"]]
            waiting = self._under_way.get(batch["batch_id"])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            self._verifier.complain("what came out of the queue is no batch")
            return
        if waiting is None or waiting.names != [name for name, _ in items]:
            self._verifier.complain("a batch came out that is not as it was sent")
        for name, signature in items:
            self._verifier.receive(name, name, signature)
        if waiting is not None and not waiting.out.done():
            waiting.out.set_result(None)


def _settle(began: asyncio.Future[float], at_s: float) -> None:
    if not began.done():  # it is where the run was ended meanwhile
        began.set_result(at_s)
