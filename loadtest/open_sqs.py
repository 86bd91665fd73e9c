"""The queues as an entrance for an open loop: settlement batches go in, and each is waited for until it comes out.

A batch is timed until this program has received it: with the queue's own delays, for that is what callers wait.
"""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from loadtest.messages import Book, Page, batch_body
from loadtest.tally import Tally
from loadtest.verifier import Verifier

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MOST_IN_A_CALL: Final = 10
_SENDERS: Final = 8
_RECEIVERS: Final = 2


class SqsDriver:
    """Sends batches of `size` transactions, and waits for them."""

    def __init__(
        self, sqs: "SQSClient", queues: dict[str, str], book: Book, verifier: Verifier, prefix: str, size: int = 25
    ) -> None:
        self.size = size
        self.timeout_s = 60.0
        self._sqs, self._queues, self._book, self._verifier, self._prefix = sqs, queues, book, verifier, prefix
        self._under_way: dict[str, tuple[list[tuple[str, Page]], asyncio.Future[None]]] = {}
        self._senders = ThreadPoolExecutor(_SENDERS, "send")
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receivers: list[threading.Thread] = []
        self.stray = 0
        """Batches that came out and were not waited for."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._receivers = [threading.Thread(target=self._receive, args=(self._loop,)) for _ in range(_RECEIVERS)]
        for thread in self._receivers:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._receivers:
            await asyncio.to_thread(thread.join)
        self._senders.shutdown()

    async def send(self, tally: Tally, intended_s: float) -> None:
        """Send one batch, wait until it comes out, and note what came of it."""
        loop = asyncio.get_running_loop()
        transactions = [self._book.take(self._prefix) for _ in range(self.size)]
        batch_id = f"B-{transactions[0][0]}"
        for name, page in transactions:
            self._verifier.send(name, page.digest)
        out: asyncio.Future[None] = loop.create_future()
        self._under_way[batch_id] = (transactions, out)
        body = batch_body(batch_id, transactions)
        tally.start(intended_s)
        try:
            await loop.run_in_executor(self._senders, self._put, body)
            await asyncio.wait_for(out, self.timeout_s)
        except (BotoCoreError, ClientError, TimeoutError) as error:
            tally.fail(type(error).__name__)
            del self._under_way[batch_id]
            for name, _ in transactions:
                self._verifier.give_up(name)
            return
        tally.finish(intended_s)

    def _put(self, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._queues["inbound"], MessageBody=body)

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        url = self._queues["outbound"]
        while not self._over.is_set():
            try:
                answer = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_MOST_IN_A_CALL, WaitTimeSeconds=1)
                messages = answer.get("Messages", [])
                for message in messages:
                    loop.call_soon_threadsafe(self._take, json.loads(message["Body"]))
                if messages:
                    gone: list[Any] = [
                        {"Id": str(at), "ReceiptHandle": each["ReceiptHandle"]} for at, each in enumerate(messages)
                    ]
                    self._sqs.delete_message_batch(QueueUrl=url, Entries=gone)
            except (BotoCoreError, ClientError):
                self._over.wait(1.0)

    def _take(self, batch: dict[str, Any]) -> None:
        """Match what came out with what went in, item by item; what came twice goes to the proof too."""
        transactions, out = self._under_way.pop(batch["batch_id"], ([], None))
        if out is None:
            self.stray += 1
        for item in batch["transactions"]:
            name = item["transaction_id"]
            self._verifier.receive(name, name, item.get("signature"))
        if out is not None and not out.done():
            whole = [name for name, _ in transactions] == [item["transaction_id"] for item in batch["transactions"]]
            self.stray += not whole
            out.set_result(None)
