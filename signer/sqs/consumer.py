"""The threads of the queue entrance: one receives, a bounded number work, and one keeps the leases."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from signer.deadlines import Deadline
from signer.logs import Logger
from signer.metrics import Metrics, Stopwatch
from signer.settings import SqsSettings
from signer.signing import SigningService
from signer.sqs.desk import SigningDesk
from signer.sqs.forwarder import Forwarder
from signer.sqs.inbound import InboundQueue
from signer.sqs.lease import Leases
from signer.sqs.messages import Delivery
from signer.sqs.outage import Outage
from signer.sqs.worker import BatchWorker, Case

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_MOST_IN_ONE_RECEIVE: Final = 10
_LOOK_AGAIN_S: Final = 0.5


class Consumer:
    """Receives settlement batches, no more than there are free workers, and sees each one through."""

    def __init__(
        self,
        client: "SQSClient",
        settings: SqsSettings,
        service: SigningService,
        metrics: Metrics,
        logger: Logger,
        signing_timeout_s: float,
    ) -> None:
        self._metrics = metrics
        self._logger = logger
        self._inbound = InboundQueue(client, settings)
        self._leases = Leases(self._inbound, settings.visibility_timeout_s, logger)
        desk = SigningDesk(service, settings, signing_timeout_s)
        self._worker = BatchWorker(
            desk, Forwarder(client, settings), self._leases, settings.retry_after_s, metrics, logger
        )
        self._outage = Outage(logger)
        self._may_poll: Callable[[], bool] = lambda: True
        self._stopping = threading.Event()
        self._places = threading.Semaphore(settings.max_batches_in_flight)
        self._cases: SimpleQueue[Case | None] = SimpleQueue()
        # Daemons: an AWS call that hangs cannot keep the process alive beyond its drain time.
        self._receiver = threading.Thread(target=self._receive_all, name="sqs-receiver", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"sqs-worker-{number}", daemon=True)
            for number in range(settings.max_batches_in_flight)
        ]

    def start(self, may_poll: Callable[[], bool] | None = None) -> None:
        """Begin to receive; only while `may_poll` says so.

        A service that cannot sign must not poll: each delivery in vain brings a batch closer to the dead-letter queue.
        """
        self._may_poll = may_poll or self._may_poll
        self._leases.start()
        for thread in (*self._workers, self._receiver):
            thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Stop receiving, finish what is in flight, and stop the heartbeat last; False if that took too long.

        The long poll under way is waited for: cancelled, it could still hide messages that nobody works on. Safe to
        call twice; what is left after a False is in the queue's hands, as after a crash.
        """
        deadline = Deadline.after(timeout_s)
        self._stopping.set()
        done = _join([self._receiver], deadline)
        for _ in self._workers:
            self._cases.put(None)
        done = _join(self._workers, deadline) and done
        if done:
            self._leases.close(deadline.remaining_s())
        return done

    def problems(self) -> tuple[str, ...]:
        """Say why no batches come in; empty when they do."""
        if self._stopping.is_set() or not self._receiver.is_alive():
            return ("the queue is not being polled",)
        reason = self._outage.reason
        return () if reason is None else (f"the inbound queue does not answer: {reason}",)

    def _receive_all(self) -> None:
        while not self._stopping.is_set():
            if not self._may_poll():
                self._stopping.wait(_LOOK_AGAIN_S)
                continue
            places = self._take_places()
            taken = self._receive(places) if places else 0
            for _ in range(places - taken):
                self._places.release()

    def _take_places(self) -> int:
        if not self._places.acquire(timeout=_LOOK_AGAIN_S):
            return 0
        places = 1
        while places < _MOST_IN_ONE_RECEIVE and self._places.acquire(blocking=False):
            places += 1
        return places

    def _receive(self, places: int) -> int:
        try:
            deliveries = self._inbound.receive(places)
        except Exception as error:  # noqa: BLE001 - whatever it is, the queue must be polled again
            self._stopping.wait(self._outage.begin(error))
            return 0
        self._outage.end()
        cases = [case for case in map(self._open, deliveries) if case is not None]
        if self._stopping.is_set():
            self._worker.hand_back(cases)
            return 0
        for case in cases:
            self._cases.put(case)
        return len(cases)

    def _open(self, delivery: Delivery) -> Case | None:
        lease = self._leases.take(delivery)
        if lease is None:
            self._logger.info("batch.in_flight_already", message_id=delivery.message_id)
            return None
        self._metrics.batches.labels("received").inc()
        return Case(delivery, lease, Stopwatch(self._metrics, "sqs"))

    def _work(self) -> None:
        while (case := self._cases.get()) is not None:
            self._worker.work_off(case)
            self._places.release()


def _join(threads: Sequence[threading.Thread], deadline: Deadline) -> bool:
    started = [thread for thread in threads if thread.ident is not None]
    for thread in started:
        thread.join(deadline.remaining_s())
    return not any(thread.is_alive() for thread in started)
