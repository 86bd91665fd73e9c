"""Tells of each change of versions: to the audit log, to the metrics, and to whoever runs the service."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from signer.hsm.journal import Journal
from signer.hsm.key_versions import KeyVersions, Version
from signer.ports import KeyVersion, VersionState
from signer.versions import KEY_SET_MAX_AGE_S, Standing
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
        who, now = f"key {version.alias}: version {version.label}", self._clock()
        late = version.active_from is None or version.active_from <= now
        if version.state is VersionState.UPCOMING and version.not_ready is not None:
            due = "was to sign" if late else "is to sign"
            yield f"{who} {due} from {moment(version.active_from)} and is not ready: {version.not_ready}"
        elif version.state is VersionState.UPCOMING and late:
            yield f"{who} was to sign from {moment(version.active_from)} and waits: {_waits(version)}"
        elif version.key is None:
            yield f"{who} is retired and cannot be published: {version.not_ready}"
        known = _known_everywhere(version)
        if known is not None and known > now:
            yield f"{who}: {_short_notice(version, known)}"

    def _rotated(self, former: Version, current: Version) -> None:
        spec = current.spec
        planned = f"planned for {moment(spec.active_from)}"
        told = f"version {spec.label} signs, {former.spec.label} did before; {planned}"
        self._journal.incident("key.rotated", told, spec.alias, current.key)
        self._journal.logger.warning("key.rotated", key=spec.alias, label=spec.label, former=former.spec.label)

    def _note_overdue(self, alias: str, current: Version) -> None:
        plan = self._versions.plan(alias)
        later = plan[plan.index(current) + 1 :]
        late = next((version for version in reversed(later) if version.is_overdue(self._clock())), None)
        self._journal.metrics.rotation_overdue.labels(alias).set(late is not None)
        if late is None:
            self._overdue.pop(alias, None)
        elif self._overdue.get(alias) is not late:
            self._overdue[alias] = late
            told = f"version {late.spec.label} was to sign from {moment(late.spec.active_from)}"
            reason = late.not_ready or _waits(late)
            self._journal.incident("key.overdue", f"{told}, {current.spec.label} goes on: {reason}", alias)
            self._journal.logger.error("key.overdue", key=alias, label=late.spec.label, reason=reason)


def _waits(version: Version | KeyVersion) -> str:
    found, begins = moment(version.published_at), moment(version.signs_from)
    return f"its key was found at {found} only, and signs from {begins}, when every task publishes it"


def _known_everywhere(version: KeyVersion) -> datetime | None:
    """Give when nobody keeps a key set without it any more, if it signs before; None: it was published in time."""
    published, begins = version.published_at, version.signs_from
    if version.state is VersionState.RETIRED or published is None or begins is None or begins <= published:
        return None
    known = published + timedelta(seconds=KEY_SET_MAX_AGE_S)
    return known if begins < known else None


def _short_notice(version: KeyVersion, known: datetime) -> str:
    since, begins = moment(version.published_at), moment(version.signs_from)
    told = f"this task publishes it since {since}, and it signs from {begins}"
    return f"{told}: who keeps key sets for {KEY_SET_MAX_AGE_S} s may lack it until {moment(known)}"


def moment(at: datetime | None) -> str:
    """Give a moment of the plan as people read it."""
    return "ever" if at is None else timestamp(at)
