"""Keeps the policy in force what the files say: looks at them four times a second, and records every difference."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Generic, TypeVar

from signer.authority import Authority
from signer.errors import ConfigurationError, UnavailableError
from signer.logs import Logger, frames_of
from signer.metrics import PolicyMetrics
from signer.policy import Kills, Policy
from signer.policy_changes import Change, changes
from signer.policy_file import parse_policy, read_bytes
from signer.policy_kills import parse_kills
from signer.ports import AuditLog
from signer.work import timestamp

LOOK_INTERVAL_S: Final = 0.25

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where the policy comes from."""

    file: Path | None
    """None: it is `built_in`."""
    kill_file: Path
    built_in: Policy


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
    back, that the audit log does not know of.
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
        self._recorded = self._wanted()
        self._unrecorded: list[Change] = []
        """Refusals that the audit log has not taken yet."""
        self.authority = Authority(self._recorded, clock_s)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
        self._count_kills(self._recorded)

    def start(self) -> None:
        """Record what is in force, then look again and again on a thread of its own; raises `AuditUnavailableError`."""
        now, found = timestamp(self._wall_clock()), changes(Policy({}), self._recorded)
        self._audit.append([replace(item, operation="policy.loaded").audit_entry(now, "done") for item in found])
        self._thread.start()

    def close(self) -> None:
        """Stop looking; what is in force stays so. Safe to call at any time."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def warnings(self) -> tuple[str, ...]:
        """Say what whoever runs the service has to know, though it goes on: files that are bad, and what is killed."""
        kills = self.authority.current().kills
        killed = [f"key {name} is killed" for name in kills.keys]
        killed += [f"caller {name} is killed" for name in kills.callers]
        bad = [f"{problem}; what was in force stays so" for problem in self._problems()]
        return (*bad, *killed)

    def look(self) -> None:
        """Look at the files once."""
        for file in self._files():
            if file.look():
                self._refuse(file.problem or "")
        self._metrics.stale.set(1 if self._problems() else 0)
        if self._unrecorded and self._record(self._unrecorded, "refused"):
            self._unrecorded = []
        wanted = self._wanted()
        if wanted != self._recorded:
            self._change(wanted)

    def _change(self, wanted: Policy) -> None:
        in_force = self.authority.current()
        self.authority.replace(replace(in_force, kills=_both(in_force.kills, wanted.kills)))
        found = changes(self._recorded, wanted)
        if not self._record(found):
            return  # the next look tries again
        self.authority.replace(wanted)
        self._recorded = wanted
        self._count_kills(wanted)
        self._metrics.reloads.labels("changed").inc()
        for change in found:
            self._logger.warning(change.operation, detail=change.detail)

    def _refuse(self, problem: str) -> None:
        self._logger.error("policy.refused", reason=problem)
        self._metrics.reloads.labels("refused").inc()
        self._unrecorded.append(Change("policy.refused", problem))

    def _record(self, found: list[Change], outcome: str = "done") -> bool:
        now = timestamp(self._wall_clock())
        try:
            self._audit.append([item.audit_entry(now, outcome) for item in found])
        except UnavailableError as error:
            self._logger.warning("policy.not_recorded", reason=error.message)
            return False
        return True

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
