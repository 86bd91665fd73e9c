"""A worker whose lease was lost does nothing more that others could see: 200 times, at three moments."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.chaos.batches import Mill
from tests.chaos.evidence import Journal
from tests.chaos.feeder import Feeder
from tests.chaos.keeper import end
from tests.chaos.proxy import Exchange, Proxy, nothing
from tests.chaos.site import Service, Site, open_site
from tests.chaos.wire import answer

# A lease is lost between service and queue, whatever the module is like.
pytestmark = pytest.mark.once

WHEN = {"fetching": 80, "forwarding": 60, "forwarded": 60}
"""Its lease is lost before the batch was signed; while its forwarding fails; after it was forwarded."""
HIDDEN_S = 600
PATIENCE_S = 60.0


class Thief:
    """Takes messages away while the service is at work on them: somebody else has them from then on."""

    def __init__(self, proxy: Proxy, moments: dict[str, str]) -> None:
        self._moments = moments
        self._lost = {batch_id: asyncio.Event() for batch_id in moments}
        self._held: set[str] = set()
        self._batch_of_handle: dict[str, str] = {}
        self._batch_of_message: dict[str, str] = {}
        self.begun: Counter[str] = Counter()
        """What the service began after it had heard that the message is somebody else's."""
        proxy.every("ReceiveMessage", self._receive)
        proxy.every("GetObject", self._fetch)
        proxy.every("SendMessageBatch", self._forward)
        proxy.every("ChangeMessageVisibilityBatch", self._steal)
        proxy.every("DeleteMessageBatch", self._delete)

    async def heard(self, message_ids: Iterable[str]) -> None:
        """Learn that the service knows: what it waits for goes on now."""
        for message_id in message_ids:
            self._lost[self._batch_of_message[message_id]].set()

    async def _receive(self, exchange: Exchange) -> None:
        received = await exchange.pass_on()
        for message in json.loads(received.body).get("Messages", []):
            batch_id = batch_id_of(message["Body"])
            self._batch_of_handle[message["ReceiptHandle"]] = batch_id
            self._batch_of_message[message["MessageId"]] = batch_id
        await exchange.answer(received)

    async def _fetch(self, exchange: Exchange) -> None:
        await self._hold(exchange.request.start.split(" ")[1].rpartition("/")[2].partition("?")[0])
        await nothing(exchange)

    async def _forward(self, exchange: Exchange) -> None:
        """Let those through that are to be forwarded, and answer once each has lost its lease."""
        asked = exchange.request.parameters
        batch_ids = {entry["Id"]: entry["MessageAttributes"]["batch_id"]["StringValue"] for entry in asked["Entries"]}
        self.begun["forwards"] += sum(self._lost[batch_id].is_set() for batch_id in batch_ids.values())
        failing = [key for key, batch_id in batch_ids.items() if self._moments[batch_id] == "forwarding"]
        done: dict[str, list[dict[str, object]]] = {"Successful": [], "Failed": []}
        if passed := [entry for entry in asked["Entries"] if entry["Id"] not in failing]:
            accepted = await exchange.ask("SendMessageBatch", {**asked, "Entries": passed})
            done |= json.loads(accepted.body)
        await self._hold(*batch_ids.values())
        done["Failed"] = [{"Id": key, "Code": "ServiceUnavailable", "SenderFault": False} for key in failing]
        await exchange.answer(answer(200, done))

    async def _delete(self, exchange: Exchange) -> None:
        batch_ids = [self._batch_of_handle[entry["ReceiptHandle"]] for entry in exchange.request.parameters["Entries"]]
        self.begun["deletes"] += sum(self._lost[batch_id].is_set() for batch_id in batch_ids)
        await nothing(exchange)

    async def _hold(self, *batch_ids: str) -> None:
        self._held.update(batch_ids)
        for batch_id in batch_ids:
            await self._lost[batch_id].wait()

    async def _steal(self, exchange: Exchange) -> None:
        """Take those messages away whose work has come to its moment; the others are extended."""
        asked = exchange.request.parameters
        done: dict[str, list[dict[str, object]]] = {"Successful": [], "Failed": []}
        for entry in asked["Entries"]:
            stolen = self._batch_of_handle[entry["ReceiptHandle"]] in self._held
            hidden = {"QueueUrl": asked["QueueUrl"], "ReceiptHandle": entry["ReceiptHandle"]}
            seconds = HIDDEN_S if stolen else entry["VisibilityTimeout"]
            await exchange.ask("ChangeMessageVisibility", {**hidden, "VisibilityTimeout": seconds})
            if stolen:
                done["Failed"].append({"Id": entry["Id"], "Code": "MessageNotInflight", "SenderFault": True})
            else:
                done["Successful"].append({"Id": entry["Id"]})
        await exchange.answer(answer(200, done))


def batch_id_of(body: str) -> str:
    """Name a batch by its message, which may be a pointer."""
    document = json.loads(body)
    found: str = document["batch_id"] if isinstance(document, dict) else document[1]["s3Key"].rpartition("/")[2]
    return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    # A hundred at once on a busy machine take longer than the site's deadline, and would be given up instead of lost.
    many = {
        "SIGNER_SQS__MAX_BATCHES_IN_FLIGHT": "100",
        "SIGNER_SIGNING_TIMEOUT_S": "60",
        "SIGNER_LEDGER__LEASE_S": "90",
    }
    with open_site(tmp_path, "sqlite", 1, fifo=False, extra=many) as made:
        yield made


def send(site: Site) -> dict[str, str]:
    """Send the batches; gives the moment at which each loses its lease."""
    moments: dict[str, str] = {}
    mill, journal = Mill(1), Journal(site.directory / "sent.jsonl")
    feeder = Feeder(site, mill, journal, lambda _: False)
    for moment, count in WHEN.items():
        for _ in range(count):
            (sent,) = mill.of("pointer" if moment == "fetching" else "good")
            moments[sent.batch_id] = moment
            feeder.send(sent)
    return moments


def told(service: Service, event: str) -> set[str]:
    """Name the messages that the service's log tells this of."""
    lines = service.log.read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["message_id"] for line in lines if line.startswith("{") and f'"{event}"' in line}


@pytest.mark.timeout(300)
def test_nothing_is_forwarded_or_deleted_on_a_lost_lease(site: Site) -> None:
    """200 leases lost, 0 forwards and 0 deletes begun after; those forwarded before are out, and nothing else is."""
    (service,) = site.services
    moments = send(site)
    thief = Thief(service.proxy, moments)
    process = service.start()
    try:
        until_s = time.monotonic() + PATIENCE_S
        while len(told(service, "batch.lost_lease")) < len(moments) and time.monotonic() < until_s:
            site.loop.run(thief.heard(told(service, "lease.lost")))
            time.sleep(0.1)
    finally:
        status = end(process)
    assert (status, len(told(service, "batch.lost_lease"))) == (0, 200)
    assert thief.begun.total() == 0, thief.begun
    assert site.depth("inbound") == 200
    assert site.depth("outbound") == WHEN["forwarded"]
