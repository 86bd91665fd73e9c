"""What lies in the quarantine queue: looked at without consuming it, and sent in once more."""

import base64
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from signer.errors import InvalidInputError
from signer.settings import SqsSettings
from signer.sqs.inbound import InboundQueue
from signer.sqs.lease import Lease
from signer.sqs.messages import Attributes, Delivery, Outgoing
from signer.sqs.outbound import OutboundQueue
from signer.sqs.quarantine import ATTRIBUTE

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

_MOST_ENTRIES: Final = 1000
_HIDDEN_S: Final = 120
_LOOK_S: Final = 1
_MOST_IN_ONE_CALL: Final = 10
_LONGEST_POSITION: Final = 4
_SHORTEST_PREFIX: Final = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch that was set aside."""

    delivery: Delivery
    reasons: dict[str, Any]
    """What stands beside it; empty where there was no room."""

    @property
    def entry_id(self) -> str:
        """What names it for as long as it lies there: its message id in the quarantine queue."""
        return self.delivery.message_id

    @property
    def sent_at(self) -> datetime:
        """When it was set aside."""
        return datetime.fromtimestamp(int(self.delivery.system_attributes.get("SentTimestamp", "0")) / 1000, UTC)


class SetAside:
    """The quarantine queue, for those who look after it."""

    def __init__(self, client: "SQSClient", settings: SqsSettings) -> None:
        # A long poll, though a short one: only a long poll asks all of the servers that a queue lies on.
        reading = {"inbound_url": settings.quarantine_url, "wait_s": _LOOK_S, "visibility_timeout_s": _HIDDEN_S}
        self._quarantine = InboundQueue(client, settings.model_copy(update=reading))
        self._inbound = OutboundQueue(client, settings.inbound_url)

    @contextmanager
    def entries(self) -> Iterator[list[Entry]]:
        """Give the entries, up to a thousand, the oldest first; at the end of the block they are put back.

        Meanwhile nobody else sees them. A FIFO queue gives no more than ten of a group. Raises
        `QueueUnavailableError`.
        """
        found: dict[str, Entry] = {}
        try:
            while len(found) < _MOST_ENTRIES and (deliveries := self._quarantine.receive(_MOST_IN_ONE_CALL)):
                found |= {delivery.message_id: Entry(delivery, reasons_of(delivery)) for delivery in deliveries}
            yield sorted(found.values(), key=lambda entry: (entry.sent_at, entry.entry_id))
        finally:
            handles = [entry.delivery.receipt_handle for entry in found.values()]
            for start in range(0, len(handles), _MOST_IN_ONE_CALL):
                self._quarantine.hide(dict.fromkeys(handles[start : start + _MOST_IN_ONE_CALL], 0))

    def replay(self, entry: Entry) -> None:
        """Send a batch in once more, as it first came; its entry goes once the inbound queue has it.

        Within `entries` only. Raises `QueueUnavailableError` and `LeaseLostError`; the entry may then be in both
        queues, which does no harm: what was signed is not signed otherwise.
        """
        delivery = entry.delivery
        until_s = delivery.asked_at_s + _HIDDEN_S
        lease = Lease(delivery.message_id, delivery.receipt_handle, delivery.asked_at_s, until_s, time.monotonic)
        group_id = str(entry.reasons.get("group_id", delivery.group_id))
        # The same for every try at this entry: a try whose answer was lost is not made twice.
        message = Outgoing(delivery.body, own_attributes(entry), group_id, f"replay-{entry.entry_id}")
        self._inbound.send(message, lease.check)
        self._quarantine.delete(delivery.receipt_handle, lease.check)


def named(entries: Sequence[Entry], name: str) -> Entry:
    """Find the entry with this id, or the beginning of it, or at this place from 1 up; raises `InvalidInputError`."""
    if name.isdecimal() and len(name) <= _LONGEST_POSITION:
        found = list(entries[int(name) - 1 : int(name)]) if int(name) else []
    else:
        found = [entry for entry in entries if len(name) >= _SHORTEST_PREFIX and entry.entry_id.startswith(name)]
    if len(found) != 1:
        msg = "no entry, or more than one, has this number or this id; of an id, six characters are the least"
        raise InvalidInputError(msg)
    return found[0]


def reasons_of(delivery: Delivery) -> dict[str, Any]:
    """Give what stands beside an entry; empty where nothing does that could be read."""
    attribute = delivery.attributes.get(ATTRIBUTE)
    try:
        reasons = json.loads("" if attribute is None else attribute.get("StringValue", ""))
    except (ValueError, RecursionError):
        return {}
    return reasons if isinstance(reasons, dict) else {}


def own_attributes(entry: Entry) -> Attributes:
    """Give the attributes that the message first came with; raises `InvalidInputError`."""
    moved = entry.reasons.get("attributes")
    own = {name: value for name, value in entry.delivery.attributes.items() if name != ATTRIBUTE}
    return own | ({name: _from_json(value) for name, value in moved.items()} if isinstance(moved, dict) else {})


def _from_json(value: Any) -> "MessageAttributeValueOutputTypeDef":
    try:
        if "BinaryValue" in value:
            return {"DataType": value["DataType"], "BinaryValue": base64.b64decode(value["BinaryValue"], validate=True)}
        return {"DataType": value["DataType"], "StringValue": value["StringValue"]}
    except (KeyError, TypeError, ValueError):
        msg = "the entry's reasons were not written by this service: its attributes cannot be restored"
        raise InvalidInputError(msg) from None
