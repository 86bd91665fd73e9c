"""Leases on received messages: how long each one is ours, and the heartbeat that keeps it so."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from signer import failpoints
from signer.logs import Logger, frames_of
from signer.sqs.errors import LeaseLostError, QueueUnavailableError
from signer.sqs.inbound import InboundQueue
from signer.sqs.messages import Delivery

_LONGEST_S: Final = 12 * 3600
_MOST_IN_ONE_CALL: Final = 10
# An expired handle answers InvalidParameterValue, whatever the reference says. Any other code is a beat missed.
_LOST: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})


@dataclass(slots=True)
class Lease:
    """Our hold on one message. Once lost it stays lost, unless the message itself is delivered here again."""

    message_id: str
    receipt_handle: str
    taken_at_s: float
    held_until_s: float
    clock: Callable[[], float]
    lost: str | None = None
    """Why, once it is."""

    @property
    def held(self) -> bool:
        """Whether the message is certainly ours at this moment."""
        if self.lost is None and self.clock() >= self.held_until_s:
            self.lost = "the visibility timeout ran out"
        return self.lost is None

    def check(self) -> None:
        """Return if the message is ours, else raise `LeaseLostError`: right before each step others would see."""
        if not self.held:
            msg = f"the message is no longer ours: {self.lost}"
            raise LeaseLostError(msg)


class Leases:
    """Every message in flight; one thread extends all of them, every third of the visibility timeout."""

    def __init__(
        self,
        inbound: InboundQueue,
        visibility_timeout_s: int,
        logger: Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbound = inbound
        self._visibility_timeout_s = visibility_timeout_s
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._beating: set[str] = set()
        """The handles in the call of the heartbeat that is under way."""
        self._after_beat: dict[str, int] = {}
        """What is to be hidden, and for how long, once it is not."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sqs-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Stop beating, after the last message in flight is done with; waits so long for a beat under way."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def take(self, delivery: Delivery) -> Lease | None:
        """Give the lease on a message just received; None if the message is in flight here already.

        In that case the running lease is ours again, under the newer receipt handle: an older one may answer well
        and do nothing.
        """
        held_until_s = delivery.asked_at_s + self._visibility_timeout_s
        with self._lock:
            lease = self._leases.get(delivery.message_id)
            if lease is None:
                lease = Lease(
                    delivery.message_id, delivery.receipt_handle, delivery.asked_at_s, held_until_s, self._clock
                )
                self._leases[delivery.message_id] = lease
                return lease
            lease.receipt_handle = delivery.receipt_handle
            lease.taken_at_s, lease.held_until_s, lease.lost = delivery.asked_at_s, held_until_s, None
            return None

    def end(self, lease: Lease) -> None:
        """Stop extending it; what becomes of the message is the caller's business."""
        with self._lock:
            # Unless the message was delivered here once more since, and has another lease.
            if self._leases.get(lease.message_id) is lease:
                del self._leases[lease.message_id]

    def delete(self, lease: Lease) -> None:
        """Remove the message from the queue for good, if it is still ours."""
        delete = partial(self._inbound.delete, lease.receipt_handle, lease.check)
        failpoints.reach("deleting", failpoints.cut_short(delete))
        delete()

    def give_back(self, leases: Sequence[tuple[Lease, int]]) -> None:
        """Let messages come again in so many seconds; where that fails, they do once their time is up."""
        for lease, _ in leases:
            self.end(lease)
        self._show([(lease, after_s) for lease, after_s in leases if lease.held])

    def abandon(self) -> None:
        """Let others have at once whatever is still held here; whoever works on it finds it lost."""
        with self._lock:
            leases = [lease for lease in self._leases.values() if lease.held]
            for lease in leases:
                lease.lost = "it was given up"
            self._leases.clear()
        self._show([(lease, 0) for lease in leases])

    def beat(self) -> None:
        """Extend every lease, ten to a call; a call that fails is a beat missed for its ten."""
        with self._lock:
            leases = [lease for lease in self._leases.values() if lease.held]
        for start in range(0, len(leases), _MOST_IN_ONE_CALL):
            self._extend(leases[start : start + _MOST_IN_ONE_CALL])

    def _extend(self, leases: Sequence[Lease]) -> None:
        sent_at_s = self._clock()
        with self._lock:
            by_handle = {lease.receipt_handle: lease for lease in leases if self._leases.get(lease.message_id) is lease}
            all_seconds = {
                handle: _within_limit_s(lease, self._visibility_timeout_s, sent_at_s)
                for handle, lease in by_handle.items()
            }
            seconds = {handle: seconds for handle, seconds in all_seconds.items() if seconds}
            self._beating = set(seconds)
        try:
            refused = self._inbound.hide(seconds) if seconds else {}
        except QueueUnavailableError as error:
            self._logger.warning("heartbeat.missed", reason=error.message, messages=len(seconds))
            return
        finally:
            with self._lock:
                given_back, self._after_beat, self._beating = self._after_beat, {}, set()
            self._hide(given_back)
        with self._lock:
            for handle, extension_s in seconds.items():
                lease = by_handle[handle]
                if lease.receipt_handle == handle and self._leases.get(lease.message_id) is lease:
                    self._note(lease, refused.get(handle), sent_at_s + extension_s)

    def _show(self, leases: Sequence[tuple[Lease, int]]) -> None:
        now_s = self._clock()
        with self._lock:
            seconds = {lease.receipt_handle: _within_limit_s(lease, after_s, now_s) for lease, after_s in leases}
            # The beat under way could arrive later than we do, and hide them anew: it has the last word.
            self._after_beat |= {handle: seconds.pop(handle) for handle in self._beating & seconds.keys()}
        self._hide(seconds)

    def _hide(self, seconds: Mapping[str, int]) -> None:
        handles = list(seconds)
        for start in range(0, len(handles), _MOST_IN_ONE_CALL):
            part = {handle: seconds[handle] for handle in handles[start : start + _MOST_IN_ONE_CALL]}
            try:
                self._inbound.hide(part)
            except Exception as error:  # noqa: BLE001 - nothing depends on it
                self._logger.warning("lease.give_back_failed", messages=len(part), error_type=type(error).__name__)

    def _note(self, lease: Lease, code: str | None, until_s: float) -> None:
        if code in _LOST:
            lease.lost = code
            self._logger.warning("lease.lost", message_id=lease.message_id, code=code)
        # SQS may answer well for a handle that ran out while the call was under way, and do nothing.
        elif code is None and lease.held:
            lease.held_until_s = until_s

    def _run(self) -> None:
        while not self._closing.wait(self._visibility_timeout_s / 3):
            try:
                self.beat()
            except Exception as error:  # noqa: BLE001 - without its heartbeat every batch in flight would be lost
                self._logger.error(  # noqa: TRY400 - the exception's text could quote a message
                    "heartbeat.failed", error_type=type(error).__name__, traceback=frames_of(error)
                )


def _within_limit_s(lease: Lease, wanted_s: int, now_s: float) -> int:
    # SQS refuses, rather than shortens, what would go beyond twelve hours from the receive.
    return max(0, min(wanted_s, int(lease.taken_at_s + _LONGEST_S - now_s)))
