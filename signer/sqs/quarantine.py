"""The reasons of a quarantine entry: one message attribute, ASCII JSON, made to fit beside the untouched body."""

import base64
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from signer.errors import BatchAbandonedError
from signer.sqs.messages import Attributes, Delivery, size_bytes, string_attribute
from signer.sqs.patience import Failure
from signer.sqs.pointers import LEGACY_SIZE_ATTRIBUTE, SIZE_ATTRIBUTE
from signer.transactions import BatchRefusedError, Refusal
from signer.work import timestamp

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageAttributeValueOutputTypeDef

ATTRIBUTE: Final = "quarantine"
_MOST_ATTRIBUTES: Final = 10


def quarantine_attributes(
    delivery: Delivery, refused: BatchRefusedError, history: Sequence[Failure], queue: str, max_message_bytes: int
) -> Attributes:
    """Give the attributes of the quarantine entry: the message's own, and the reasons as far as there is room.

    Transactions are left out from the end, and counted; then everything but the code; then the reasons altogether,
    for they stand in the audit log too and the message does not. Reasons from an earlier quarantine are replaced.
    """
    own = {name: delivery.attributes[name] for name in sorted(delivery.attributes, key=_rank) if name != ATTRIBUTE}
    beside = dict(list(own.items())[: _MOST_ATTRIBUTES - 1])
    overflow = {name: _as_json(value) for name, value in own.items() if name not in beside}
    header = {
        "code": refused.cause.code,
        "message": refused.cause.message,
        "batch_id": refused.batch_id,
        "queue": queue,
        "message_id": delivery.message_id,
        "receive_count": delivery.receive_count,
        **_history(delivery, history),
        **({"attributes": overflow} if overflow else {}),
    }
    room = max_message_bytes - size_bytes(delivery.body, {**beside, ATTRIBUTE: string_attribute("")})
    reasons = _reasons(header, [_entry(refusal) for refusal in refused.refusals], room)
    if reasons is None and not overflow:
        code = _dumps({"code": refused.cause.code})
        reasons = code if len(code) <= room else None
    return own if reasons is None else {**beside, ATTRIBUTE: string_attribute(reasons)}


def _rank(name: str) -> tuple[bool, str]:
    # Without its size attribute a pointer would not be one any more.
    return name not in (SIZE_ATTRIBUTE, LEGACY_SIZE_ATTRIBUTE), name


def _reasons(header: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], room: int) -> str | None:
    def render(count: int) -> str:
        omitted = {"transactions_omitted": len(entries) - count} if count < len(entries) else {}
        return _dumps({**header, **omitted, "transactions": entries[:count]})

    fitting = bisect_right(range(len(entries) + 1), room, key=lambda count: len(render(count)))
    return render(fitting - 1) if fitting else None


def _history(delivery: Delivery, failures: Sequence[Failure]) -> dict[str, Any]:
    first = delivery.system_attributes.get("ApproximateFirstReceiveTimestamp", "")
    group_id = delivery.system_attributes.get("MessageGroupId")
    return {
        # Milliseconds since 1970.
        **({"first_received": timestamp(datetime.fromtimestamp(int(first) / 1000, UTC))} if first.isdecimal() else {}),
        **({"group_id": group_id} if group_id is not None else {}),
        **({"history": [_failure(failure) for failure in failures]} if failures else {}),
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {"receive": failure.receive_count, "code": failure.code, "at": timestamp(failure.at)}


def _entry(refusal: Refusal) -> dict[str, Any]:
    entry = {"index": refusal.index, "transaction_id": refusal.transaction_id, "code": refusal.error.code}
    # A sibling's message says nothing that its code does not.
    return entry if isinstance(refusal.error, BatchAbandonedError) else {**entry, "message": refusal.error.message}


def _as_json(attribute: "MessageAttributeValueOutputTypeDef") -> dict[str, str]:
    binary = attribute.get("BinaryValue")
    value = (
        {"StringValue": attribute.get("StringValue", "")}
        if binary is None
        else {"BinaryValue": base64.b64encode(binary).decode("ascii")}
    )
    return {"DataType": attribute["DataType"], **value}


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
