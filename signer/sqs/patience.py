"""How a batch that fails is treated over its deliveries: when it comes again, and when it has failed often enough."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from signer.sqs.backoff import pause_s
from signer.sqs.messages import Delivery

_MOST_MESSAGES: Final = 1000
_MOST_FAILURES: Final = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """One delivery that came to nothing here."""

    receive_count: int
    code: str
    at: datetime


class Patience:
    """Remembers how batches failed in this process: the latest failures of the latest thousand of them."""

    def __init__(
        self,
        last_try: Callable[[], int | None],
        retry_after_s: int,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._last_try = last_try
        self._retry_after_s = retry_after_s
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[Failure]] = OrderedDict()

    def is_last_try(self, delivery: Delivery) -> bool:
        """Tell whether this delivery must not come to nothing: the queue could move the message away next time."""
        last = self._last_try()
        return last is not None and delivery.receive_count >= last

    def is_spent(self, delivery: Delivery) -> bool:
        """Tell whether the last try has been, and nobody set the batch aside: whoever had it may have died of it."""
        last = self._last_try()
        return last is not None and delivery.receive_count > last

    def pause_s(self, delivery: Delivery, code: str) -> int:
        """Give the seconds until it may come again after a failure with this code."""
        return pause_s(code, delivery.receive_count, self._retry_after_s)

    def note(self, delivery: Delivery, code: str) -> None:
        """Remember a failure."""
        failure = Failure(delivery.receive_count, code, self._wall_clock())
        with self._lock:
            failures = self._failures.setdefault(delivery.message_id, [])
            failures.append(failure)
            del failures[:-_MOST_FAILURES]
            self._failures.move_to_end(delivery.message_id)
            while len(self._failures) > _MOST_MESSAGES:
                self._failures.popitem(last=False)

    def history(self, delivery: Delivery) -> Sequence[Failure]:
        """Give its failures in this process, the oldest first."""
        with self._lock:
            return tuple(self._failures.get(delivery.message_id, ()))

    def forget(self, delivery: Delivery) -> None:
        """Do so, once it is done with."""
        with self._lock:
            self._failures.pop(delivery.message_id, None)
