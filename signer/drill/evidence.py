"""What was sent, what was released and what failed, as the drill saw it from outside the service."""

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ENTRANCES: Final = ("http", "sqs")


@dataclass(frozen=True, slots=True)
class Sent:
    """One transaction as it went in; times are Unix seconds, as in the service's log."""

    transaction_id: str
    entrance: str
    message: Mapping[str, str]
    at_s: float


@dataclass(frozen=True, slots=True)
class Released:
    """One copy of a signature that left the service; over SQS with the content it came with."""

    transaction_id: str
    signature: Mapping[str, str]
    message: Mapping[str, Any] | None = None

    def value(self) -> bytes:
        """Give the signature itself."""
        return base64.b64decode(self.signature["value"])


@dataclass(frozen=True, slots=True)
class Event:
    """Some transactions were signed (`code` is None), or a try of theirs failed."""

    at_s: float
    entrance: str
    code: str | None
    asked_s: float = 0.0
    """When it was asked for: what was under way when a fault ended says nothing about recovery."""
    transactions: int = 1


class Evidence:
    """Collects from all threads of the load."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.released: list[Released] = []
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def send(self, sent: Sent) -> None:
        """Note what goes in, before it does: it may be out sooner than the sender is back."""
        with self._lock:
            self.sent[sent.transaction_id] = sent

    def release(self, released: Released) -> None:
        """Note what came out."""
        with self._lock:
            self.released.append(released)

    def note(self, event: Event) -> None:
        """Note a success or a failure."""
        with self._lock:
            self._events.append(event)

    def events(self, since_s: float = 0.0) -> list[Event]:
        """Give what happened from a moment on, in the order of time."""
        with self._lock:
            events = [event for event in self._events if event.at_s >= since_s]
        return sorted(events, key=lambda event: event.at_s)

    def unsigned(self) -> set[str]:
        """Name the transactions of which no signature came out yet."""
        with self._lock:
            return self.sent.keys() - {released.transaction_id for released in self.released}
