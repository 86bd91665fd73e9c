"""What becomes of one delivered message: forwarded, quarantined, or left in the queue to come again."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from signer import failpoints
from signer.errors import SignerError
from signer.logs import Logger, frames_of
from signer.metrics import Metrics
from signer.sqs.case import Case
from signer.sqs.desk import SigningDesk
from signer.sqs.errors import BatchDeferredError, LeaseLostError, ReceivesExhaustedError
from signer.sqs.forwarder import Forwarder
from signer.sqs.lease import Leases
from signer.sqs.patience import Patience
from signer.transactions import BatchRefusedError


class End(StrEnum):
    """How a delivery ended, as the metrics name it; each ends in exactly one of these."""

    FORWARDED = "forwarded"
    QUARANTINED = "quarantined"
    RETURNED = "returned"
    LOST_LEASE = "lost_lease"

    @property
    def is_done(self) -> bool:
        """Whether the message has left the queue."""
        return self in (End.FORWARDED, End.QUARANTINED)


_SOON_S: Final = 60
"""So long at most stays away what is downstream already: a FIFO queue knows its copy for five minutes only."""
_LOG_EVENTS: Final = {
    End.FORWARDED: (logging.INFO, "batch.forwarded"),
    End.QUARANTINED: (logging.WARNING, "batch.quarantined"),
    End.RETURNED: (logging.WARNING, "batch.returned"),
    End.LOST_LEASE: (logging.WARNING, "batch.lost_lease"),
}


class BatchWorker:
    """Works off one case at a time, on whichever thread calls."""

    def __init__(
        self,
        desk: SigningDesk,
        forwarder: Forwarder,
        leases: Leases,
        patience: Patience,
        metrics: Metrics,
        logger: Logger,
    ) -> None:
        self._desk = desk
        self._forwarder = forwarder
        self._leases = leases
        self._patience = patience
        self._metrics = metrics
        self._logger = logger

    def work_off(self, case: Case, tell_size: Callable[[int], None]) -> End:
        """Do all that is to be done for one message; raises nothing, and never deletes what is not safe downstream.

        `tell_size` is called with the number of its transactions, once it was read.
        """
        case.watch.add("admission", time.monotonic() - case.delivery.received_at_s)
        end = self._end(case, tell_size)
        if end.is_done:
            self._leases.end(case.lease)
            self._patience.forget(case.delivery)
        else:
            self._patience.note(case.delivery, case.facts["code"])
            pause_s = self._patience.pause_s(case.delivery, case.facts["code"])
            self._leases.give_back([(case.lease, min(pause_s, _SOON_S) if case.is_downstream else pause_s)])
        self._close(case, end)
        return end

    def hand_back(self, cases: Sequence[Case], code: str) -> None:
        """Let others have messages that nobody has begun to work on, at once."""
        self._leases.give_back([(case.lease, 0) for case in cases])
        for case in cases:
            self._patience.note(case.delivery, code)
            case.facts["code"] = code
            self._close(case, End.RETURNED)

    def _end(self, case: Case, tell_size: Callable[[int], None]) -> End:
        if self._patience.is_spent(case.delivery):
            return self._attempt(case, lambda: self._give_up(case))
        end = self._attempt(case, lambda: self._sign_and_forward(case, tell_size))
        if end is End.RETURNED and self._patience.is_last_try(case.delivery):
            self._patience.note(case.delivery, case.facts["code"])
            return self._attempt(case, lambda: self._give_up(case))
        return end

    def _attempt(self, case: Case, step: Callable[[], End]) -> End:
        try:
            return step()
        except LeaseLostError as error:
            case.facts.update(code=error.code, reason=error.message)
            return End.LOST_LEASE
        except SignerError as error:
            case.facts.update(code=error.code, reason=error.message)
        except Exception as error:  # noqa: BLE001 - unknown: nothing is deleted or quarantined, and the thread lives on
            case.facts.update(code="internal_error", error_type=type(error).__name__, traceback=frames_of(error))
        return End.RETURNED

    def _sign_and_forward(self, case: Case, tell_size: Callable[[int], None]) -> End:
        case.lease.check()
        failpoints.reach("received")
        try:
            signed = self._desk.sign(case.delivery, case.watch, tell_size, case.lease.check)
        except BatchDeferredError as deferred:
            _note(case, deferred)
            raise deferred.cause from None
        except BatchRefusedError as refused:
            return self._quarantine(case, refused.without_frames())
        case.facts.update(
            batch_id=signed.batch_id, transactions=sum(signed.outcomes.values()), outcomes=dict(signed.outcomes)
        )
        case.lease.check()
        with case.watch.stage("forward"):
            self._forwarder.forward(signed, case.lease.check)
        case.is_downstream = True
        self._leases.delete(case.lease)
        failpoints.reach("deleted")
        self._metrics.last_success.labels("sqs").set_to_current_time()
        return End.FORWARDED

    def _give_up(self, case: Case) -> End:
        history = self._patience.history(case.delivery)
        last = f"the last time here: {history[-1].code}" if history else "and nobody here knows why"
        msg = f"delivered {case.delivery.receive_count} times in vain, {last}; next time it could become a dead letter"
        exhausted = ReceivesExhaustedError(msg)
        return self._quarantine(case, BatchRefusedError(exhausted, case.facts.get("batch_id"), case.refusals))

    def _quarantine(self, case: Case, refused: BatchRefusedError) -> End:
        _note(case, refused)
        case.lease.check()
        self._desk.record_quarantine(case.delivery, refused)
        history = self._patience.history(case.delivery)
        self._forwarder.quarantine(case.delivery, refused, history, case.lease.check)
        self._leases.delete(case.lease)
        failpoints.reach("deleted")
        return End.QUARANTINED

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
    case.refusals = unsigned.refusals
    case.facts.update(batch_id=unsigned.batch_id, code=unsigned.cause.code, reason=unsigned.cause.message)
    if unsigned.refusals or "transactions" not in case.facts:
        outcomes = Counter(refusal.error.code for refusal in unsigned.refusals)
        case.facts.update(transactions=len(unsigned.refusals), outcomes=dict(outcomes))
