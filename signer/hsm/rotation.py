"""Tells of each change of versions: to the audit log, to the metrics, and to whoever runs the service."""

from collections.abc import Callable, Iterator
from datetime import datetime

from signer.hsm.journal import Journal
from signer.hsm.key_versions import KeyVersions, Version
from signer.ports import KeyVersion, VersionState
from signer.versions import Standing
from signer.work import timestamp


class RotationWatch:
    """Compares what signs with what signed when it was last looked; for one thread."""

    def __init__(self, versions: KeyVersions, journal: Journal, clock: Callable[[], datetime]) -> None:
        """`clock` gives the time in UTC."""
        self._versions = versions
        self._journal = journal
        self._clock = clock
        self._signing: dict[str, Version] = {}
        self._overdue: dict[str, Version] = {}

    def look(self) -> None:
        """Note what was rotated since the last call, and what should have been."""
        for alias in self._versions.aliases():
            current = self._versions.in_force(alias)
            for version in self._versions.plan(alias):
                is_ready = version.standing is Standing.READY and version.out_of_service is None
                self._journal.metrics.version_ready.labels(alias, version.spec.label).set(is_ready)
            if current is None:
                continue
            former = self._signing.get(alias, current)
            self._signing[alias] = current
            if former is not current:
                self._rotated(former, current)
            self._note_overdue(alias, current)

    def warnings(self) -> tuple[str, ...]:
        """Say which versions do not sign, or are not published, as planned."""
        aliases = self._versions.aliases()
        return tuple(
            told for alias in aliases for item in self._versions.versions(alias) for told in self._warnings(item)
        )

    def _warnings(self, version: KeyVersion) -> Iterator[str]:
        who = f"key {version.alias}: version {version.label}"
        if version.state is VersionState.UPCOMING and version.not_ready is not None:
            late = version.active_from is None or version.active_from <= self._clock()
            due = "was to sign" if late else "is to sign"
            yield f"{who} {due} from {moment(version.active_from)} and is not ready: {version.not_ready}"
        elif version.key is None:
            yield f"{who} is retired and cannot be published: {version.not_ready}"

    def _rotated(self, former: Version, current: Version) -> None:
        spec = current.spec
        planned = f"planned for {moment(spec.active_from)}"
        told = f"version {spec.label} signs, {former.spec.label} did before; {planned}"
        self._journal.incident("key.rotated", told, spec.alias, current.key)
        self._journal.logger.warning("key.rotated", key=spec.alias, label=spec.label, former=former.spec.label)

    def _note_overdue(self, alias: str, current: Version) -> None:
        plan = self._versions.plan(alias)
        later = plan[plan.index(current) + 1 :]
        late = next((version for version in reversed(later) if version.candidate().is_due(self._clock())), None)
        self._journal.metrics.rotation_overdue.labels(alias).set(late is not None)
        if late is None:
            self._overdue.pop(alias, None)
        elif self._overdue.get(alias) is not late:
            self._overdue[alias] = late
            told = f"version {late.spec.label} was to sign from {moment(late.spec.active_from)}"
            self._journal.incident("key.overdue", f"{told}, {current.spec.label} goes on: {late.not_ready}", alias)
            self._journal.logger.error("key.overdue", key=alias, label=late.spec.label, reason=late.not_ready)


def moment(at: datetime | None) -> str:
    """Give a moment of the plan as people read it."""
    return "ever" if at is None else timestamp(at)
