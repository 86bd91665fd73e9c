"""One transaction as an item of the DynamoDB table, and the conditional writes that change it: pure.

Every condition that the sign-once rule rests on is here; a write that is refused gives back the item that stood in its
way. Numbers are Unix seconds. No attribute has a name that DynamoDB reserves.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from signer.errors import LedgerUnavailableError
from signer.ledger.record import Holder, Record, holders_from_text, holders_to_text, this_process, unix_time
from signer.ports import Claim, Claimed, Signature

Item = Mapping[str, Any]

TRANSACTION_ID: Final = "transaction_id"
KEY_ALIAS: Final = "key_alias"
TTL: Final = "expires_at"

# What lies beyond its retention counts as forgotten, whether DynamoDB has come to delete it (it may take days) or not.
_FREE: Final = f"attribute_not_exists({TRANSACTION_ID}) OR {TTL} <= :now"
_OWN: Final = f"holder_token = :token AND attribute_not_exists(signature) AND {TTL} > :now"
_TAKE_OVER: Final = """
    SET holder_token = :new_token, holder = :holder, claimed_at = :now, lease_expires_at = :lease_expires_at,
        take_overs = :take_overs, former_holders = :former_holders, expires_at = :expires_at
"""
_COMPLETE: Final = "SET signature = :signature, completed_at = :now, expires_at = :expires_at"


@dataclass(frozen=True, slots=True)
class Write:
    """One conditional write of one item, in the terms of the API."""

    action: Literal["Put", "Update", "Delete"]
    parameters: Mapping[str, Any]
    record: Record | None = None
    """What it changes, where that was read before."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a claim keeps others away, and how long a transaction is remembered."""

    lease_s: float
    retention_s: float

    def bind(self, wanted: Claimed, now: float) -> Write:
        """Bind a transaction that nobody named before, or that is forgotten."""
        item = {
            **_key(wanted.claim),
            "digest": {"B": wanted.claim.digest},
            "algorithm": {"S": wanted.claim.algorithm},
            "holder_token": {"S": wanted.token},
            "holder": {"S": this_process()},
            "claimed_at": _number(now),
            "lease_expires_at": _number(now + self.lease_s),
            TTL: self._expires_at(now),
        }
        if wanted.claim.key_label is not None:
            item["key_label"] = {"S": wanted.claim.key_label}
        if wanted.claim.caller is not None:
            item["caller"] = {"S": wanted.claim.caller}
        return Write("Put", {"Item": item, **_condition(_FREE, {":now": _number(now)})})

    def take_over(self, record: Record, wanted: Claimed, now: float) -> Write:
        """Take a claim over whose lease ran out, from the holder whom `record` names and from nobody else."""
        holder = Holder(wanted.token, this_process(), now)
        taken = record.taken_over_by(holder, now + self.lease_s)
        values = {
            ":new_token": {"S": holder.token},
            ":holder": {"S": holder.owner},
            ":lease_expires_at": _number(taken.lease_expires_at),
            ":take_overs": {"N": str(taken.take_overs)},
            ":former_holders": {"S": holders_to_text(taken.former)},
            ":expires_at": self._expires_at(now),
        }
        change = _own(record.claim, record.holder.token, now, values, " AND lease_expires_at <= :now")
        return Write("Update", {"UpdateExpression": _TAKE_OVER, **change}, record)

    def complete(self, claimed: Claimed, signature: Signature, now: float) -> Write:
        """Keep a signature, unless there is one."""
        values = {":signature": _signature_members(claimed.claim, signature), ":expires_at": self._expires_at(now)}
        return Write("Update", {"UpdateExpression": _COMPLETE, **_own(claimed.claim, claimed.token, now, values)})

    def _expires_at(self, now: float) -> dict[str, str]:
        # DynamoDB deletes by whole seconds.
        return {"N": str(math.ceil(now + self.retention_s))}


def release(claimed: Claimed, now: float) -> Write:
    """End the lease of a claim that is still held."""
    change = _own(claimed.claim, claimed.token, now, {":ended": _number(0)})
    return Write("Update", {"UpdateExpression": "SET lease_expires_at = :ended", **change})


def withdraw(claimed: Claimed, now: float) -> Write:
    """Unbind a transaction: with the token that bound it still there, nobody else ever worked on it."""
    return Write("Delete", _own(claimed.claim, claimed.token, now, {}))


def is_forgotten(item: Item, now: float) -> bool:
    """Tell whether an item lies there only because DynamoDB has not come to delete it yet."""
    return int(item[TTL]["N"]) <= now


def record_of(item: Item) -> Record:
    """Read an item; raises `LedgerUnavailableError` for one that this service did not write."""
    try:
        int(item[TTL]["N"])
        claim = Claim(
            item[KEY_ALIAS]["S"],
            item[TRANSACTION_ID]["S"],
            bytes(item["digest"]["B"]),
            item["algorithm"]["S"],
            item.get("key_label", {}).get("S"),
            item.get("caller", {}).get("S"),
        )
        record = Record(
            claim,
            Holder(item["holder_token"]["S"], item["holder"]["S"], unix_time(item["claimed_at"]["N"])),
            unix_time(item["lease_expires_at"]["N"]),
            int(item.get("take_overs", {"N": "0"})["N"]),
            holders_from_text(item.get("former_holders", {}).get("S")),
        )
        if "signature" not in item:
            return record
        members = {name: value["S"] for name, value in item["signature"]["M"].items()}
        signature = Signature.from_message({**_implied(claim), **members})
        return replace(record, signature=signature, completed_at=unix_time(item["completed_at"]["N"]))
    except (KeyError, TypeError, ValueError, RecursionError):
        msg = "the ledger's table holds something under this transaction that is not a claim"
        raise LedgerUnavailableError(msg) from None


def _signature_members(claim: Claim, signature: Signature) -> dict[str, Any]:
    # Without what the claim says already, the usual item stays below the 1,024 bytes that one write unit pays for.
    implied = _implied(claim)
    members = signature.to_message().items()
    return {"M": {name: {"S": value} for name, value in members if value != implied.get(name)}}


def _implied(claim: Claim) -> dict[str, str]:
    digest = base64.b64encode(claim.digest).decode()
    implied = {"key_alias": claim.key_alias, "algorithm": claim.algorithm, "digest": digest}
    return implied if claim.key_label is None else {**implied, "key_label": claim.key_label}


def _key(claim: Claim) -> dict[str, Any]:
    return {TRANSACTION_ID: {"S": claim.transaction_id}, KEY_ALIAS: {"S": claim.key_alias}}


def _own(claim: Claim, token: str, now: float, values: Mapping[str, Any], further: str = "") -> dict[str, Any]:
    condition = _condition(_OWN + further, {":token": {"S": token}, ":now": _number(now), **values})
    return {"Key": _key(claim), **condition}


def _condition(expression: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ConditionExpression": expression,
        "ExpressionAttributeValues": values,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def _number(seconds: float) -> dict[str, str]:
    return {"N": f"{seconds:.3f}"}
