"""What a ledger knows of one transaction, and the one rule by which a claim is answered: pure, for every backend."""

import json
import math
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from signer.errors import ClaimInProgressError, ConflictError, SignerError
from signer.ports import Claim, Claimed, Signature

_KEPT_HOLDERS: Final = 10
_YEAR_10000: Final = 253_402_300_800
"""As Unix seconds; RFC 3339 ends before it."""


def this_process() -> str:
    """Name this process for the history of what it claims: host and process number."""
    return f"{socket.gethostname()}/{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who claimed a transaction, and when."""

    token: str
    owner: str
    """The process, as `this_process` names it."""
    claimed_at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Record:
    """One transaction: the digest it is bound to, who holds its claim, and the signature once there is one."""

    claim: Claim
    holder: Holder
    lease_expires_at: float
    """Unix seconds."""
    take_overs: int = 0
    former: tuple[Holder, ...] = ()
    """Who held it before, oldest first: who bound it, and the latest few."""
    signature: Signature | None = None
    completed_at: float | None = None

    def answer_to(self, wanted: Claimed, now: float) -> Claimed | Signature | SignerError | None:
        """Answer a claim; None: it may be taken over, by whoever finds this record unchanged."""
        if (self.claim.digest, self.claim.algorithm) != (wanted.claim.digest, wanted.claim.algorithm):
            return ConflictError("this transaction is bound to another digest or algorithm")
        if self.signature is not None:
            return self.signature
        if self.holder.token == wanted.token:
            # Its own work, of which it did not hear.
            return self.granted_to(wanted, is_first=self.take_overs == 0)
        if now < self.lease_expires_at:
            return ClaimInProgressError("another request is signing this transaction now")
        return None

    def granted_to(self, wanted: Claimed, *, is_first: bool = False) -> Claimed:
        """Give the claim as it stands here, to a new holder: the version it was bound with is the one that signs."""
        return replace(wanted, claim=self.claim, is_first=is_first)

    def taken_over_by(self, holder: Holder, lease_expires_at: float) -> "Record":
        """Give the record with another holder; its digest, algorithm and transaction never change."""
        former = (*self.former, self.holder)
        kept = former if len(former) <= _KEPT_HOLDERS else (former[0], *former[1 - _KEPT_HOLDERS :])
        return replace(
            self, holder=holder, lease_expires_at=lease_expires_at, take_overs=self.take_overs + 1, former=kept
        )


def holders_to_text(holders: Sequence[Holder]) -> str | None:
    """Give the former holders as they are stored; None while there are none."""
    return json.dumps([asdict(holder) for holder in holders]) if holders else None


def holders_from_text(text: str | None) -> tuple[Holder, ...]:
    """Read back what `holders_to_text` gave; raises `TypeError`, `ValueError` for what it did not."""
    return tuple(_plausible(Holder(**members)) for members in json.loads(text or "[]"))


def unix_time(stored: float | str) -> float:
    """Read a moment; raises `TypeError`, `ValueError` for one that no calendar has."""
    try:
        at_s = float(stored)
    except OverflowError:
        at_s = math.inf
    if not 0 <= at_s < _YEAR_10000:
        msg = "this is no moment"
        raise ValueError(msg)
    return at_s


def _plausible(holder: Holder) -> Holder:
    unix_time(holder.claimed_at)
    return holder
