"""Keeps the policy in force what the files say: looks at them four times a second, has every difference recorded."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Generic, TypeVar

from signer.authority import Authority
from signer.errors import ConfigurationError
from signer.logs import Logger, frames_of
from signer.metrics import PolicyMetrics
from signer.policy import Kills, Policy
from signer.policy_changes import Change, changes
from signer.policy_file import parse_policy, read_bytes
from signer.policy_kills import parse_kills
from signer.policy_recorder import Noted, PolicyRecorder
from signer.ports import AuditLog
from signer.refusal_bounds import PER_MINUTE, RefusalBounds
from signer.work import timestamp

LOOK_INTERVAL_S: Final = 0.25

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where the policy comes from, and how much of what it refuses is recorded."""

    file: Path | None
    """None: it is `built_in`."""
    kill_file: Path
    built_in: Policy
    audited_refusals_per_minute: int = PER_MINUTE
    """Of one caller."""


class _File(Generic[Value]):
    """One file, and the last good value that was read from it."""

    def __init__(self, path: Path, what: str, parse: Callable[[bytes], Value], absent: Value | None) -> None:
        """`absent` is the value of a file that never was there; None: it has to be. Raises `ConfigurationError`."""
        self.path = path
        self.problem: str | None = None
        self._what = what
        self._parse = parse
        self._seen: bytes | None = None
        self._never_was = absent is not None and not path.exists()
        if absent is not None and self._never_was:
            self.value = absent
        else:
            self._seen = read_bytes(path, what)
            self.value = parse(self._seen)

    def look(self) -> bool:
        """Take up what changed; True if there is something wrong that was not known before."""
        known = self.problem
        try:
            content = read_bytes(self.path, self._what)
        except ConfigurationError as error:
            self._seen = None
            # A kill file that was never made is not one that is gone.
            self.problem = None if self._never_was and not self.path.exists() else error.message
        else:
            self._never_was = False
            if content != self._seen:
                self._take(content)
        return self.problem is not None and self.problem != known

    def _take(self, content: bytes) -> None:
        self._seen = content
        try:
            self.value, self.problem = self._parse(content), None
        except ConfigurationError as error:
            self.problem = error.message


class PolicyWatch:
    """Changes the policy in force when its files change; a bad file changes nothing.

    A kill is in force at once and recorded then. Everything else is recorded first: nobody gains a right, or a key
    back, that the audit log does not know of. Whatever the audit log does, the files are looked at.
    """

    def __init__(
        self,
        source: PolicySource,
        audit: AuditLog,
        metrics: PolicyMetrics,
        logger: Logger,
        wall_clock: Callable[[], datetime],
        clock_s: Callable[[], float],
    ) -> None:
        """Read both files; raises `ConfigurationError`: without knowing what is killed nothing must be signed."""
        self._rules = _File(source.file, "policy file", parse_policy, None) if source.file is not None else None
        self._kills = _File(source.kill_file, "kill file", parse_kills, Kills())
        self._built_in = source.built_in
        self._audit = audit
        self._metrics = metrics
        self._logger = logger
        self._wall_clock = wall_clock
        self._recorded = self._noted = self._wanted()
        """The rules in force, which are on record; and those that are to follow, when that is."""
        self._refused: Counter[str] = Counter()
        """What was wrong with files, until it is noted."""
        bounds = RefusalBounds(clock_s, source.audited_refusals_per_minute, _counting(metrics))
        self.authority = Authority(self._recorded, clock_s, bounds)
        self._deciding = threading.Lock()
        self._recorder = PolicyRecorder(audit, self._take_effect, logger, metrics.unrecorded)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._count_kills(self._recorded)

    def start(self) -> None:
        """Record what is in force, then look again and again on a thread of its own; raises `AuditUnavailableError`."""
        now, found = timestamp(self._wall_clock()), changes(Policy({}), self._recorded)
        self._audit.append([replace(item, operation="policy.loaded").audit_entry(now, "done") for item in found])
        self._recorder.start()
        self._thread.start()

    def close(self) -> None:
        """Stop looking, and record what is not on record yet; what is in force stays so. Safe to call at any time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._note_refusals(closing=True)
        self._recorder.close()

    def warnings(self) -> tuple[str, ...]:
        """Say what whoever runs the service has to know, though it goes on: files that are bad, and what is killed."""
        kills = self.authority.current().kills
        killed = [f"key {name} is killed" for name in kills.keys]
        killed += [f"caller {name} is killed" for name in kills.callers]
        bad = [f"{problem}; what was in force stays so" for problem in self._problems()]
        waiting = len(self._recorder.waiting())
        unrecorded = [f"{waiting} records of the policy wait for the audit log"] if waiting else []
        return (*bad, *killed, *unrecorded)

    def look(self) -> None:
        """Look at the files once, and at what was refused; waits for nothing."""
        for file in self._files():
            if file.look():
                self._refuse(file.problem or "")
        self._metrics.stale.set(1 if self._problems() else 0)
        wanted = self._wanted()
        if wanted != self._noted:
            self._put_in_force()
            if self._recorder.has_room:
                self._note_change(wanted)
        self._note_refusals()

    def record(self) -> None:
        """Record what was noted, as its own thread does all the time."""
        self._recorder.record()

    def _note_change(self, wanted: Policy) -> None:
        now, found = timestamp(self._wall_clock()), changes(self._noted, wanted)
        self._recorder.note(Noted(tuple(item.audit_entry(now, "done") for item in found), wanted))
        self._noted = wanted

    def _note_refusals(self, *, closing: bool = False) -> None:
        """Note bad files, and the refusals of callers that were not recorded one by one."""
        if not self._recorder.has_room:
            return
        now = timestamp(self._wall_clock())
        refused, self._refused = self._refused, Counter()
        found = [
            Change("policy.refused", problem if times == 1 else f"{problem} ({times} times)").audit_entry(
                now, "refused"
            )
            for problem, times in refused.items()
        ]
        found += self.authority.refusals.take_untold(now, closing=closing)
        if found:
            self._recorder.note(Noted(tuple(found)))

    def _take_effect(self, noted: Noted) -> None:
        if noted.policy is None:
            return
        self._recorded = noted.policy
        self._put_in_force()
        self._metrics.reloads.labels("changed").inc()
        for entry in noted.entries:
            self._logger.warning(entry.operation, detail=entry.detail)

    def _put_in_force(self) -> None:
        """Let the rules be in force that are on record, and all kills: of these, of the files, and of all between."""
        with self._deciding:
            kills = self._recorded.kills
            for noted in self._recorder.waiting():
                if noted.policy is not None:
                    kills = _both(kills, noted.policy.kills)
            policy = replace(self._recorded, kills=_both(kills, self._wanted().kills))
            self.authority.replace(policy)
            self._count_kills(policy)

    def _refuse(self, problem: str) -> None:
        self._logger.error("policy.refused", reason=problem)
        self._metrics.reloads.labels("refused").inc()
        self._refused[problem] += 1

    def _wanted(self) -> Policy:
        rules = self._built_in if self._rules is None else self._rules.value
        return replace(rules, kills=self._kills.value)

    def _files(self) -> "list[_File[Policy] | _File[Kills]]":
        return [self._kills] if self._rules is None else [self._kills, self._rules]

    def _problems(self) -> list[str]:
        return [file.problem for file in self._files() if file.problem is not None]

    def _count_kills(self, policy: Policy) -> None:
        self._metrics.killed.labels("key").set(len(policy.kills.keys))
        self._metrics.killed.labels("caller").set(len(policy.kills.callers))

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_INTERVAL_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - a kill switch whose thread died would stop nothing
                self._logger.error(  # noqa: TRY400 - the exception's text could quote a file
                    "policy.failed", error_type=type(error).__name__, traceback=frames_of(error)
                )


def _both(some: Kills, others: Kills) -> Kills:
    return replace(some, keys={**others.keys, **some.keys}, callers={**others.callers, **some.callers})


def _counting(metrics: PolicyMetrics) -> Callable[[str], None]:
    return lambda code: metrics.refusals.labels(code).inc()
