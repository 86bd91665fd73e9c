"""The sign-once ledger of a fleet: one DynamoDB table that every process shares, guarded by conditional writes."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from signer.deadlines import Deadline
from signer.errors import ClaimLostError, LedgerUnavailableError, SignerError
from signer.ledger import items
from signer.ledger.items import Terms, Write
from signer.ledger.table import make_client, require_table
from signer.ledger.writes import Outcome, Refused, Writes
from signer.metrics import Metrics
from signer.ports import Claim, Claimed, Signature
from signer.settings import LedgerSettings

_LAST_CALL: Final = 0.75
"""Of the time of a commit: a call that begins before then ends within it."""


class DynamodbLedger:
    """A `SignOnceLedger` in a table that others write to at the same time.

    `wall_clock` gives Unix seconds, which the whole fleet must agree on to within a fraction of the lease. Raises
    `ConfigurationError` if the table is absent or has another key, `LedgerUnavailableError`.
    """

    def __init__(self, table: str, settings: LedgerSettings, metrics: Metrics, wall_clock: Callable[[], float]) -> None:
        self._timeout_s = settings.commit_timeout_s * _LAST_CALL
        self._terms = Terms(settings.lease_s, settings.retention_s)
        self._wall_clock = wall_clock
        self.client = make_client(settings)
        try:
            require_table(self.client, table)
        except BaseException:
            self.client.close()
            raise
        self._writes = Writes(self.client, table, settings.parallel_transactions, metrics)

    @property
    def healthy(self) -> bool:
        """False from a write that failed until the next that was made."""
        return self._writes.healthy

    def problems(self) -> tuple[str, ...]:
        """Say what a person has to put right first: nothing, whatever fails here may pass."""
        return ()

    def claim(self, claims: Sequence[Claim]) -> list[Claimed | Signature | SignerError]:
        """Bind every claim, a hundred to a transaction; see `SignOnceLedger`."""
        wanted = [Claimed(claim, secrets.token_hex(16)) for claim in claims]
        try:
            return self._claim(wanted)
        except LedgerUnavailableError:
            # What was bound nevertheless must not keep the next try waiting. It is late already: nobody waits for it.
            now = self._wall_clock()
            self._writes.post([items.release(claimed, now) for claimed in wanted], self._deadline())
            raise

    def complete(self, results: Sequence[tuple[Claimed, Signature]]) -> list[SignerError | None]:
        """Keep the signatures for replays, a hundred to a transaction; see `SignOnceLedger`."""
        now = self._wall_clock()
        writes = [self._terms.complete(claimed, signature, now) for claimed, signature in results]
        outcomes = self._writes.make(writes, self._deadline())
        return [_completed(*result, outcome) for result, outcome in zip(results, outcomes, strict=True)]

    def release(self, claims: Sequence[Claimed]) -> None:
        """End leases early, and wait for it no longer than for a commit; see `SignOnceLedger`."""
        now = self._wall_clock()
        self._try([items.release(claimed, now) for claimed in claims])

    def withdraw(self, claims: Sequence[Claimed]) -> None:
        """Unbind what these claims bound, as `release` does its work; see `SignOnceLedger`."""
        now = self._wall_clock()
        self._try([items.withdraw(claimed, now) for claimed in claims if claimed.is_first])

    def close(self) -> None:
        """Finish what was begun; later calls raise `LedgerUnavailableError`."""
        self._writes.close()
        self.client.close()

    def _claim(self, wanted: Sequence[Claimed]) -> list[Claimed | Signature | SignerError]:
        deadline = self._deadline()
        now = self._wall_clock()
        answers: dict[int, Claimed | Signature | SignerError] = {}
        writes = {index: self._terms.bind(claimed, now) for index, claimed in enumerate(wanted)}
        while writes:
            outcomes = self._writes.make(list(writes.values()), deadline)
            now = self._wall_clock()
            next_writes: dict[int, Write] = {}
            for (index, write), outcome in zip(writes.items(), outcomes, strict=True):
                answer = self._answer(wanted[index], write, outcome, now)
                if isinstance(answer, Write):
                    next_writes[index] = answer
                else:
                    answers[index] = answer
            writes = next_writes
        return [answers[index] for index in range(len(wanted))]

    def _answer(
        self, wanted: Claimed, write: Write, outcome: Outcome, now: float
    ) -> Claimed | Signature | SignerError | Write:
        """Answer a claim after its write, or give the next write to try."""
        if outcome is None:
            return replace(wanted, is_first=True) if write.record is None else write.record.granted_to(wanted)
        if not isinstance(outcome, Refused):
            return outcome
        if outcome.item is None:
            return self._terms.bind(wanted, now)
        try:
            record = items.record_of(outcome.item)
        except LedgerUnavailableError as error:
            return error
        if items.is_forgotten(outcome.item, now):
            return self._terms.bind(wanted, now)
        answer = record.answer_to(wanted, now)
        return self._terms.take_over(record, wanted, now) if answer is None else answer

    def _try(self, writes: Sequence[Write]) -> None:
        with suppress(LedgerUnavailableError):
            self._writes.make(writes, self._deadline())

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout_s)


def _completed(claimed: Claimed, signature: Signature, outcome: Outcome) -> SignerError | None:
    if isinstance(outcome, Refused):
        return None if _is_kept(claimed, signature, outcome) else _lost()
    return outcome


def _is_kept(claimed: Claimed, signature: Signature, refused: Refused) -> bool:
    """Tell whether it is our own work that stood in the way: done at the first try, whose answer was lost."""
    if refused.item is None:
        return False
    try:
        record = items.record_of(refused.item)
    except LedgerUnavailableError:
        return False
    return (record.holder.token, record.signature) == (claimed.token, signature)


def _lost() -> ClaimLostError:
    return ClaimLostError("another owner took this transaction over, or its signature is kept already")
