"""What becomes of one delivered message: forwarded, quarantined, or left in the queue to come again."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from signer.errors import SignerError
from signer.logs import Logger, frames_of
from signer.metrics import Metrics, Stopwatch
from signer.sqs.desk import SigningDesk
from signer.sqs.errors import BatchDeferredError, LeaseLostError
from signer.sqs.forwarder import Forwarder
from signer.sqs.lease import Lease, Leases
from signer.sqs.messages import Delivery
from signer.transactions import BatchRefusedError


class End(StrEnum):
    """How a delivery ended, as the metrics name it; each ends in exactly one of these."""

    FORWARDED = "forwarded"
    QUARANTINED = "quarantined"
    RETURNED = "returned"
    LOST_LEASE = "lost_lease"


_LONGEST_RETRY_S: Final = 900
_LOG_EVENTS: Final = {
    End.FORWARDED: (logging.INFO, "batch.forwarded"),
    End.QUARANTINED: (logging.WARNING, "batch.quarantined"),
    End.RETURNED: (logging.WARNING, "batch.returned"),
    End.LOST_LEASE: (logging.WARNING, "batch.lost_lease"),
}


@dataclass(slots=True)
class Case:
    """One message in flight, and what its log line will say."""

    delivery: Delivery
    lease: Lease
    watch: Stopwatch
    facts: dict[str, Any] = field(default_factory=dict)


class BatchWorker:
    """Works off one case at a time, on whichever thread calls."""

    def __init__(
        self,
        desk: SigningDesk,
        forwarder: Forwarder,
        leases: Leases,
        retry_after_s: int,
        metrics: Metrics,
        logger: Logger,
    ) -> None:
        self._desk = desk
        self._forwarder = forwarder
        self._leases = leases
        self._retry_after_s = retry_after_s
        self._metrics = metrics
        self._logger = logger

    def work_off(self, case: Case) -> None:
        """Do all that is to be done for one message; raises nothing, and never deletes what is not safe downstream."""
        case.watch.add("admission", time.monotonic() - case.delivery.received_at_s)
        end = self._end(case)
        if end in (End.FORWARDED, End.QUARANTINED):
            self._leases.end(case.lease)
        else:
            self._leases.give_back([case.lease], self._retry_after(case.delivery))
        self._close(case, end)

    def hand_back(self, cases: Sequence[Case]) -> None:
        """Let others have messages that nobody has begun to work on, at once."""
        self._leases.give_back([case.lease for case in cases], 0)
        for case in cases:
            case.facts["code"] = "shutting_down"
            self._close(case, End.RETURNED)

    def _end(self, case: Case) -> End:
        try:
            return self._sign_and_forward(case)
        except LeaseLostError as error:
            case.facts.update(code=error.code, reason=error.message)
            return End.LOST_LEASE
        except SignerError as error:
            case.facts.update(code=error.code, reason=error.message)
        except Exception as error:  # noqa: BLE001 - unknown: nothing is deleted or quarantined, and the thread lives on
            case.facts.update(code="internal_error", error_type=type(error).__name__, traceback=frames_of(error))
        return End.RETURNED

    def _sign_and_forward(self, case: Case) -> End:
        case.lease.check()
        try:
            signed = self._desk.sign(case.delivery, case.watch)
        except BatchDeferredError as deferred:
            _note(case, deferred)
            raise deferred.cause from None
        except BatchRefusedError as refused:
            _note(case, refused)
            self._quarantine(case, refused)
            return End.QUARANTINED
        case.facts.update(
            batch_id=signed.batch_id, transactions=sum(signed.outcomes.values()), outcomes=dict(signed.outcomes)
        )
        case.lease.check()
        with case.watch.stage("forward"):
            self._forwarder.forward(signed, case.delivery)
        self._leases.delete(case.lease)
        self._metrics.last_success.labels("sqs").set_to_current_time()
        return End.FORWARDED

    def _quarantine(self, case: Case, refused: BatchRefusedError) -> None:
        self._desk.record_quarantine(case.delivery, refused)
        case.lease.check()
        self._forwarder.quarantine(case.delivery, refused)
        self._leases.delete(case.lease)

    def _retry_after(self, delivery: Delivery) -> int:
        # Twice as long each time: a batch must not spend its receives, and be dead, while others mend what is broken.
        return min(self._retry_after_s << min(delivery.receive_count - 1, 10), _LONGEST_RETRY_S)

    def _close(self, case: Case, end: End) -> None:
        level, name = _LOG_EVENTS[end]
        self._logger.log(
            logging.ERROR if "traceback" in case.facts else level,
            name,
            message_id=case.delivery.message_id,
            receive_count=case.delivery.receive_count,
            **case.facts,
            **case.watch.stop(),
        )
        self._metrics.batches.labels(end).inc()


def _note(case: Case, unsigned: BatchRefusedError | BatchDeferredError) -> None:
    case.facts.update(
        batch_id=unsigned.batch_id,
        code=unsigned.cause.code,
        reason=unsigned.cause.message,
        transactions=len(unsigned.refusals),
        outcomes=dict(Counter(refusal.error.code for refusal in unsigned.refusals)),
    )
