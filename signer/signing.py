"""The core: authorise, claim, sign, verify, audit, complete; every signature of the service comes from here."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from signer import failpoints
from signer.authority import Authority
from signer.deadlines import Deadline
from signer.errors import (
    BatchAbandonedError,
    DeadlineExceededError,
    LedgerUnavailableError,
    RateLimitedError,
    SignatureInvalidError,
    SignerError,
    TooManyTransactionsError,
    UnavailableError,
)
from signer.metrics import Metrics, Stopwatch, Stopwatches
from signer.policy import Policy
from signer.ports import (
    AuditEntry,
    AuditLog,
    KeyRing,
    Origin,
    SigningKey,
    SignOnceLedger,
    SignTask,
    VersionState,
)
from signer.transactions import SigningRequest
from signer.work import Outcome, VersionsInForce, Work, keep_versions, records_of, timestamp

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Call:
    """What one caller wants signed at once."""

    requests: Sequence[SigningRequest]
    origin: Origin
    deadline: Deadline
    watch: Stopwatch
    all_or_nothing: bool = False
    """Whether nothing of it is signed once one request is refused."""


@dataclass(frozen=True, slots=True)
class _Group:
    """A call on its way through the core."""

    works: Sequence[Work]
    all_or_nothing: bool


# So many go into one durable commit: whoever comes with one transaction waits for a slice of a large batch, not for
# all of it.
_SLICE: Final = 500


class SigningService:
    """Signs transactions for every entrance, the same way for one as for a batch."""

    def __init__(
        self,
        key_ring: KeyRing,
        ledger: SignOnceLedger,
        audit: AuditLog,
        authority: Authority,
        metrics: Metrics,
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._key_ring = key_ring
        self._ledger = ledger
        self._audit = audit
        self._authority = authority
        self._metrics = metrics
        self._wall_clock = wall_clock

    def sign_many(
        self,
        requests: Sequence[SigningRequest],
        origin: Origin,
        deadline: Deadline,
        watch: Stopwatch,
        *,
        all_or_nothing: bool = False,
    ) -> list[Outcome]:
        """Sign `requests` and answer for each, in order.

        Every signature in the answer is verified, audited durably and kept for replays. With `all_or_nothing`,
        nothing is signed once one request is refused; the caller then releases nothing if one of them failed.
        Raises nothing of its own: each failure is the outcome of the requests it concerns.
        """
        call = Call(requests, origin, deadline, watch, all_or_nothing)
        return self.sign_together([call])[0]

    def sign_together(self, calls: Sequence[Call]) -> list[list[Outcome]]:
        """Sign calls that have nothing to do with each other, as `sign_many` would each; all by the first deadline.

        That is the first of those that have not passed: a call whose deadline has fails by itself. What is done once
        for all of them counts towards the time of each.
        """
        groups = [_Group([Work(item, call.origin) for item in call.requests], call.all_or_nothing) for call in calls]
        works = [work for group in groups for work in group.works]
        in_time = [call.deadline.remaining_s() > 0 for call in calls]
        deadlines = [call.deadline for call, is_in_time in zip(calls, in_time, strict=True) if is_in_time]
        deadline = min(deadlines or [call.deadline for call in calls], key=lambda each: each.at_s)
        timer = Stopwatches([call.watch for call in calls])
        try:
            # Neither a change of policy nor the instant of a rotation splits what came in together.
            versions = VersionsInForce(self._key_ring, self._wall_clock())
            for group, is_in_time in zip(groups, in_time, strict=True):
                if is_in_time:
                    self._authorise(group, versions)
                else:  # nor does it count towards the caller's limit
                    _fail(group.works, DeadlineExceededError("the deadline passed before its turn came"))
            self._abandon_siblings(groups)
            self._claim(groups, versions, deadline, timer)
            failpoints.reach("claimed")
            self._abandon_siblings(groups)
            self._sign(works, deadline)
            failpoints.reach("signed")
            self._verify(works)
            failpoints.reach("verified")
            self._append_audit(groups, timer)
            failpoints.reach("audited")
            self._complete(works, timer)
            failpoints.reach("completed")
        finally:
            held = [work.claimed for work in works if work.claimed is not None and not work.completed]
            for claims in _slices(held):
                self._ledger.release(claims)
        for group, call in zip(groups, calls, strict=True):
            for work in group.works:
                work.tell_times(call.watch)
        self._count(works)
        return [[work.outcome() for work in group.works] for group in groups]

    def record_quarantine(self, origin: Origin, error: SignerError, detail: str) -> None:
        """Make durable that a batch was refused for good; raises `AuditUnavailableError`."""
        self._audit.append(
            [
                AuditEntry(
                    time=timestamp(self._wall_clock()),
                    operation="quarantine",
                    outcome="refused",
                    error_code=error.code,
                    entrance=origin.entrance,
                    caller=origin.caller,
                    channel=origin.channel,
                    message_id=origin.message_id,
                    batch_id=origin.batch_id,
                    detail=detail,
                )
            ]
        )

    def keys(self) -> list[SigningKey]:
        """Give every key this service signs with now: of each alias the version in force, if there is one."""
        now = self._wall_clock()
        versions = [version for alias in self._key_ring.aliases() for version in self._key_ring.versions(alias, now)]
        return [item.key for item in versions if item.state is VersionState.ACTIVE and item.key is not None]

    def policy(self) -> Policy:
        """Give the policy in force at this moment; a decision of several parts asks for it once."""
        return self._authority.current()

    def _authorise(self, group: _Group, versions: VersionsInForce) -> None:
        works = group.works
        if not works:
            return
        policy, origin = self._authority.current(), works[0].origin
        limit = policy.max_batch(origin.caller)
        if len(works) > limit:
            _fail(works, TooManyTransactionsError(f"this caller may bring {limit} transactions at once"))
            return
        for work in works:
            try:
                # First of all: which aliases there are, only those learn to whom they are granted.
                policy.authorise(origin.caller, work.request)
                work.key, work.chosen_at = versions.key(work.request.key_alias), versions.chosen_at
            except SignerError as error:
                work.error = error
        wanted = [work for work in works if work.error is None]
        if group.all_or_nothing and len(wanted) < len(works):
            return
        try:
            self._authority.admit(origin.caller, len(wanted))
        except RateLimitedError as error:
            _fail(wanted, error)

    def _abandon_siblings(self, groups: Sequence[_Group]) -> None:
        for works in (group.works for group in groups if group.all_or_nothing):
            if any(work.error is not None for work in works):
                for work in works:
                    work.error = work.error or BatchAbandonedError("another transaction of the batch was not signed")
                # The HSM never saw what this call claimed, so nothing speaks against signing it otherwise.
                for claims in _slices([work.claimed for work in works if work.claimed is not None]):
                    self._ledger.withdraw(claims)

    def _claim(
        self, groups: Sequence[_Group], versions: VersionsInForce, deadline: Deadline, timer: Stopwatches
    ) -> None:
        wanted = [work for group in groups for work in group.works if work.unsigned]
        if not wanted:
            return
        with timer.stage("ledger"):
            self._claim_all(wanted, deadline)
            again = [
                work for group in groups for work in keep_versions(group.works, versions, whole=group.all_or_nothing)
            ]
            for part in _slices(again):
                self._ledger.withdraw([work.forget_claim() for work in part])
            self._claim_all(again, deadline)

    def _claim_all(self, wanted: Sequence[Work], deadline: Deadline) -> None:
        try:
            for part in _slices(wanted):
                # A ledger that is throttled may take long over each.
                deadline.check()
                for work, answer in zip(part, self._ledger.claim([work.claim() for work in part]), strict=True):
                    work.accept(answer)
        except (DeadlineExceededError, LedgerUnavailableError) as error:
            _fail([work for work in wanted if work.unsigned and work.claimed is None], error)

    def _sign(self, works: Sequence[Work], deadline: Deadline) -> None:
        wanted = [work for work in works if work.unsigned]
        if not wanted:
            return
        tasks = [
            SignTask(work.key, work.request.algorithm, work.request.digest) for work in wanted if work.key is not None
        ]
        callers = {id(task): work.origin.caller for task, work in zip(tasks, wanted, strict=True)}

        def refuse(task: SignTask) -> None:
            # The kill switch works on what came in before it was turned, too.
            self._authority.current().refuse_killed(callers[id(task)], task.key.alias)

        for work, answer in zip(wanted, self._key_ring.sign(tasks, deadline, refuse=refuse), strict=True):
            if isinstance(answer, SignerError):
                work.error = answer
            else:
                work.raw = answer

    def _verify(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.raw is not None and not work.is_sound():
                self._metrics.verification_failures.labels(work.request.key_alias).inc()
                work.error = SignatureInvalidError("the HSM returned a signature that does not verify")

    def _append_audit(self, groups: Sequence[_Group], timer: Stopwatches) -> None:
        now = timestamp(self._wall_clock())
        records = [item for group in groups for item in records_of(group.works, now, self._authority.refusals)]
        recorded = 0
        with timer.stage("audit"):
            try:
                for part in _slices(records):
                    audit_ids = self._audit.append([record.entry for record in part])
                    for record, audit_id in zip(part, audit_ids, strict=True):
                        for work in record.items:
                            work.attach_signature(now, audit_id)
                    recorded += len(part)
            except UnavailableError as error:
                self._authority.refusals.count_unrecorded(record.entry for record in records[recorded:])
                _fail([work for record in records[recorded:] for work in record.items], error)

    def _complete(self, works: Sequence[Work], timer: Stopwatches) -> None:
        results = [
            (work, work.claimed, work.signature)
            for work in works
            if work.error is None and work.claimed is not None and work.signature is not None
        ]
        if not results:
            return
        with timer.stage("ledger"):
            try:
                for part in _slices(results):
                    answers = self._ledger.complete([(claimed, signature) for _, claimed, signature in part])
                    for (work, _, _), lost in zip(part, answers, strict=True):
                        work.error = lost
                        work.completed = lost is None
            except LedgerUnavailableError as error:
                _fail([work for work, _, _ in results if not work.completed], error)

    def _count(self, works: Sequence[Work]) -> None:
        aliases = self._key_ring.aliases()

        def name(alias: str) -> str:
            return alias if alias in aliases else "unknown"  # whatever the caller made up

        ends = Counter((name(work.request.key_alias), work.origin.entrance, work.outcome_name) for work in works)
        for names, number in ends.items():
            self._metrics.signatures.labels(*names).inc(number)
        for work in works:
            if work.error is not None and work.is_security_event:
                self._metrics.security_events.labels(work.error.code).inc()


def _slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[start : start + _SLICE] for start in range(0, len(items), _SLICE))


def _fail(works: Sequence[Work], error: SignerError) -> None:
    for work in works:
        work.error = work.error or error
