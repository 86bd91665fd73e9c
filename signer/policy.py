"""May this caller use this key, and for this? Default deny."""

from collections.abc import Mapping
from dataclasses import dataclass

from signer.errors import NotAuthorisedError, TransactionIdRequiredError
from signer.transactions import SigningRequest


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What may be done with one key."""

    callers: frozenset[str]
    """Who may sign with it."""
    requires_transaction_id: bool = True
    """Whether each request must name its transaction, which is signed once for ever."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may use which key for what, by key alias."""

    keys: Mapping[str, KeyPolicy]

    def authorise(self, caller: str, request: SigningRequest) -> None:
        """Return if `caller` may have `request` signed; raises `NotAuthorisedError`, `TransactionIdRequiredError`."""
        key = self.keys.get(request.key_alias)
        if key is None or caller not in key.callers:
            msg = "this caller may not use this key"
            raise NotAuthorisedError(msg)
        if key.requires_transaction_id and not request.names_transaction:
            msg = "this key signs only what names its transaction: give a `transaction_id`"
            raise TransactionIdRequiredError(msg)
