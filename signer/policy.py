"""May this caller use this key? Default deny."""

from collections.abc import Mapping
from dataclasses import dataclass

from signer.errors import NotAuthorisedError


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may use which key."""

    callers_by_key: Mapping[str, frozenset[str]]
    """Key alias to the names of the callers that may sign with it."""

    def authorise(self, caller: str, key_alias: str) -> None:
        """Return if `caller` may sign with `key_alias`, else raise `NotAuthorisedError`."""
        if caller not in self.callers_by_key.get(key_alias, frozenset()):
            msg = "this caller may not use this key"
            raise NotAuthorisedError(msg)
