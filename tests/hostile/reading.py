"""Lets the desk of the queue entrance read hostile messages in this process, and judges what it makes of them."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from signer.demo.stack import Emulator
from signer.errors import ConflictError, InvalidInputError, NotAuthorisedError
from signer.metrics import Stopwatch
from signer.settings import PayloadSettings, SqsSettings
from signer.sqs.bodies import Bodies
from signer.sqs.case import likely_transactions
from signer.sqs.client import make_clients
from signer.sqs.desk import SigningDesk
from signer.sqs.messages import Attributes, Delivery, size_bytes
from signer.sqs.payload import store_for
from signer.sqs.quarantine import quarantine_attributes
from signer.transactions import BatchRefusedError
from tests.hostile.hostile import Hostile
from tests.hostile.placing import Places
from tests.simulators import simulate

_FOR_GOOD: Final = (InvalidInputError, NotAuthorisedError, ConflictError)
_TIMEOUT_S: Final = 60.0


class Reader:
    """A real desk over simulated edges, and a real S3."""

    def __init__(self, desk: SigningDesk, settings: SqsSettings, places: Places, watch: Stopwatch) -> None:
        self._desk = desk
        self._settings = settings
        self._places = places
        self._watch = watch
        self.verdicts: Counter[str] = Counter()
        """How often each verdict was given: `signed`, or the code of the refusal."""

    def read(self, hostile: Hostile) -> str:
        """Give the verdict on one; fails where there is none, or one that nobody can explain."""
        delivery = self._delivery(hostile)
        likely = likely_transactions(delivery, self._settings.max_transactions)
        assert 1 <= likely <= self._settings.max_transactions
        told: list[int] = []
        try:
            signed = self._desk.sign(delivery, self._watch, told.append, lambda: None)
        except BatchRefusedError as refused:
            verdict = self._judge_refusal(delivery, refused)
        else:
            _judge_signed(self._places.body_of(hostile), signed.body)
            verdict = "signed"
        assert len(told) <= 1
        self.verdicts[verdict] += 1
        return verdict

    def _delivery(self, hostile: Hostile) -> Delivery:
        placed = self._places.place(hostile)
        # At the fifth delivery nobody waits any more for a body that is absent.
        system = {"ApproximateReceiveCount": "5", "ApproximateFirstReceiveTimestamp": "1800000000000"}
        now_s = time.monotonic()
        return Delivery("message", "handle", placed.body, placed.attributes, system, now_s, now_s)

    def _judge_refusal(self, delivery: Delivery, refused: BatchRefusedError) -> str:
        assert isinstance(refused.cause, _FOR_GOOD), refused.cause
        assert refused.cause.code != "internal_error"
        limit = self._settings.max_message_bytes
        attributes: Attributes = quarantine_attributes(delivery, refused, (), "inbound", limit)
        assert size_bytes(delivery.body, attributes) <= limit
        assert json.loads(attributes["quarantine"].get("StringValue", ""))["code"] == refused.cause.code
        return refused.cause.code


def _judge_signed(content: bytes, signed: bytes) -> None:
    """Compare what comes out with what went in, as another reader of JSON sees them."""
    document: dict[str, Any] = json.loads(signed)
    assert all(transaction.pop("signature")["value"] for transaction in document["transactions"])
    assert document.pop("schema") == "signed-settlement-batch/1"
    original: dict[str, Any] = json.loads(content)
    assert original.pop("schema") == "settlement-batch/1"
    assert document == original


@contextmanager
def reader(emulator: Emulator, bucket: str) -> Iterator[Reader]:
    """Give a reader of its own; `bucket` is where bodies lie."""
    url = f"{emulator.url}/000000000000/"
    settings = SqsSettings(
        inbound_url=f"{url}inbound",
        outbound_url=f"{url}outbound",
        quarantine_url=f"{url}quarantine",
        endpoint_url=emulator.url,
        payloads=PayloadSettings(bucket=bucket, accept=frozenset({f"{bucket}/inbound/"}), endpoint_url=emulator.url),
    )
    simulation = simulate({"settlement": frozenset({"queue:inbound"}), "payout": frozenset({"nobody"})})
    with closing(make_clients(settings)) as clients:
        desk = SigningDesk(simulation.service, settings, _TIMEOUT_S, Bodies(store_for(clients, settings)))
        yield Reader(desk, settings, Places(emulator.s3, bucket), Stopwatch(simulation.metrics, "sqs"))
