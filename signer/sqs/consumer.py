"""The threads of the queue entrance: one receives, a bounded number work, and one keeps the leases."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from signer.deadlines import Deadline
from signer.logs import Logger
from signer.metrics import Metrics, Stopwatch
from signer.settings import SqsSettings
from signer.signing import SigningService
from signer.sqs.bodies import Bodies
from signer.sqs.case import Case, likely_transactions
from signer.sqs.client import Clients
from signer.sqs.desk import SigningDesk
from signer.sqs.downstream import SqsDownstream
from signer.sqs.forwarder import Forwarder
from signer.sqs.inbound import InboundQueue, caller_name
from signer.sqs.lease import Leases
from signer.sqs.line import Line
from signer.sqs.messages import Delivery
from signer.sqs.outage import Outage
from signer.sqs.patience import Patience
from signer.sqs.payload import store_for
from signer.sqs.redrive import RedriveLimit
from signer.sqs.worker import BatchWorker

_LOOK_AGAIN_S: Final = 0.5
_LONGEST_WAIT_S: Final = 900.0
_HAND_BACK_S: Final = 5.0


class Consumer:
    """Receives settlement batches, no more than agreed, and sees each one through."""

    def __init__(
        self,
        clients: Clients,
        settings: SqsSettings,
        service: SigningService,
        metrics: Metrics,
        logger: Logger,
        signing_timeout_s: float,
    ) -> None:
        self._metrics = metrics
        self._logger = logger
        self._max_transactions = settings.max_transactions
        self.caller = caller_name(settings.inbound_url)
        """The name the policy knows the queue by."""
        self._inbound = InboundQueue(clients.queues, settings, clients.leases)
        self._leases = Leases(self._inbound, settings.visibility_timeout_s, logger)
        self._redrive = RedriveLimit(clients.queues, settings, logger)
        self._patience = Patience(lambda: self._redrive.last_try, settings.retry_after_s)
        store = store_for(clients, settings)
        desk = SigningDesk(service, settings, signing_timeout_s, Bodies(store))
        forwarder = Forwarder(clients.queues, settings, SqsDownstream(clients.queues, settings, store))
        self._worker = BatchWorker(desk, forwarder, self._leases, self._patience, metrics, logger)
        self._outage = Outage(logger)
        self._line = Line(settings, metrics)
        self._may_poll: Callable[[], bool] = lambda: True
        self._stopping = threading.Event()
        # Daemons: an AWS call that hangs cannot keep the process alive beyond its drain time.
        self._receiver = threading.Thread(target=self._receive_all, name="sqs-receiver", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"sqs-worker-{number}", daemon=True)
            for number in range(settings.max_batches_in_flight)
        ]

    def start(self, may_poll: Callable[[], bool] | None = None) -> None:
        """Begin to receive, and to work on what was received; only while `may_poll` says so.

        A service that cannot sign must not poll: each delivery in vain brings a batch closer to the dead-letter queue.
        """
        self._may_poll = may_poll or self._may_poll
        self._leases.start()
        for thread in (*self._workers, self._receiver):
            thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Hand back what was not begun, finish what was, and stop the heartbeat last; False if that took too long.

        The long poll under way is waited for: cancelled, it could still hide messages that nobody works on. What is
        not finished in time is given up and handed back too. Safe to call twice.
        """
        over, deadline = Deadline.after(timeout_s), Deadline.after(timeout_s - min(_HAND_BACK_S, timeout_s / 4))
        self._stopping.set()
        done = _join([_started(self._hand_back_unbegun), self._receiver], deadline)
        self._line.close()
        done = _join(self._workers, deadline) and done
        if not done:
            _join([_started(self._leases.abandon)], over)
        self._leases.close(over.remaining_s())
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
                self._hand_back(self._waits_too_long, "waited_too_long")
                self._stopping.wait(_LOOK_AGAIN_S)
                continue
            room = self._line.room()
            if room:
                self._receive(room)

    def _receive(self, most: int) -> None:
        try:
            self._redrive.look()
            deliveries = self._inbound.receive(most)
        except Exception as error:  # noqa: BLE001 - whatever it is, the queue must be polled again
            self._stopping.wait(self._outage.begin(error))
            return
        self._outage.end()
        cases = [case for case in map(self._open, deliveries) if case is not None]
        if not self._line.add(cases):
            self._worker.hand_back(cases, "shutting_down")
        elif self._stopping.is_set():
            self._hand_back_unbegun()

    def _open(self, delivery: Delivery) -> Case | None:
        lease = self._leases.take(delivery)
        if lease is None:
            self._logger.info("batch.in_flight_already", message_id=delivery.message_id)
            return None
        self._metrics.batches.labels("received").inc()
        likely = likely_transactions(delivery, self._max_transactions)
        return Case(delivery, lease, Stopwatch(self._metrics, "sqs"), likely)

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        # A call for each: a thread that waits for the next batch does not hold on to the last one.
        case = self._line.take(self._may_begin)
        if case is not None:
            end = self._worker.work_off(case, partial(self._line.weigh, case))
            followers = self._line.leave(case, goes_back=not end.is_done)
            self._worker.hand_back(followers, "behind_another")
        return case is not None

    def _may_begin(self, case: Case) -> bool:
        # A last try that went back would end in the dead-letter queue: it is made, even while shutting down.
        return self._patience.is_last_try(case.delivery) if self._stopping.is_set() else self._may_poll()

    def _waits_too_long(self, case: Case) -> bool:
        # Others may be able to sign; the receive that it costs is spent on purpose.
        return time.monotonic() > case.delivery.asked_at_s + _LONGEST_WAIT_S

    def _hand_back_unbegun(self) -> None:
        self._hand_back(lambda _: True, "shutting_down")

    def _hand_back(self, which: Callable[[Case], bool], code: str) -> None:
        spare = self._line.withdraw(lambda case: which(case) and not self._patience.is_last_try(case.delivery))
        self._worker.hand_back(spare, code)


def _started(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name="sqs-hand-back", daemon=True)
    thread.start()
    return thread


def _join(threads: Sequence[threading.Thread], deadline: Deadline) -> bool:
    started = [thread for thread in threads if thread.ident is not None]
    for thread in started:
        thread.join(deadline.remaining_s())
    return not any(thread.is_alive() for thread in started)
