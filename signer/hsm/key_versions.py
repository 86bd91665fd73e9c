"""Every version of every key: what is planned, what was found in the HSM, and which one signs."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import pkcs11
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from signer.errors import KeyNotReadyError, KeyRefusedError, SignatureInvalidError, SignerError, UnknownKeyError
from signer.hsm.compliance import KeySpec, check_key, checked_public_key, find_private_key, refused
from signer.hsm.journal import Journal
from signer.ports import KeyVersion, SigningKey, VersionState
from signer.signatures import fingerprint
from signer.versions import Candidate, Standing, in_force, states

_ABSENT: Final = "found no private keys with this label, expected exactly one"


@dataclass(slots=True)
class Version:
    """One version, and what is known of it."""

    spec: KeySpec
    key: SigningKey | None = None
    """None until it was found in the HSM and passed its checks."""
    unfit: str | None = _ABSENT
    """Why it is not the key that it should be; None: it passed its checks."""
    proven: bool | None = None
    """Whether it made a test signature; None: that is not decided."""
    published_at: datetime | None = None
    """UTC; since when this task knows the key, and publishes it."""
    held_until: datetime | None = None
    """UTC; None: it was there at the first look, so that others may have known it for long."""
    unproven: str = "its test signature is still to come"
    out_of_service: str | None = None
    """Why it must not sign, though it is in force; until the process starts anew."""

    @property
    def standing(self) -> Standing:
        """What it is good for when its time comes."""
        if self.unfit is not None or self.key is None or self.proven is False:
            return Standing.NOT_READY
        return Standing.READY if self.proven else Standing.UNDECIDED

    @property
    def not_ready(self) -> str | None:
        """Why it could not sign."""
        return self.unfit or (None if self.proven else self.unproven)

    @property
    def signs_from(self) -> datetime | None:
        """From when on it signs if it is ready; None: since ever."""
        return max(filter(None, (self.spec.active_from, self.held_until)), default=None)

    def is_overdue(self, at: datetime) -> bool:
        """Tell whether it was to sign by the plan, whatever it waits for."""
        return (self.spec.active_from is None or self.spec.active_from <= at) and not self.candidate().is_over(at)

    def candidate(self) -> Candidate:
        """Give what the choice among versions depends on."""
        return Candidate(self.signs_from, self.spec.verify_until, self.standing)

    def told(self, state: VersionState) -> KeyVersion:
        """Describe it to the core; who is retired needs no proof, and is known even if it is gone by now."""
        retired = state is VersionState.RETIRED
        return KeyVersion(
            alias=self.spec.alias,
            label=self.spec.label,
            state=state,
            fingerprint=self.key.fingerprint if self.key is not None else self.spec.fingerprint,
            key=self.key if self.unfit is None or retired else None,
            active_from=self.spec.active_from,
            signs_from=self.signs_from,
            published_at=self.published_at,
            verify_until=self.spec.verify_until,
            not_ready=self.out_of_service or (self.unfit if retired else self.not_ready),
        )


class KeyVersions:
    """The versions by alias, eldest first; safe under threads: each change replaces what it changes.

    A version that proved itself stays ready while the HSM is in trouble, so that every task changes at the same moment;
    only another look at the key itself takes that back. One whose key is found after the start is published at once,
    and signs when the other tasks must have found it, too: their key sets could not verify what it signed before.
    Once in force it has no way back to its elder: a key that then is not what it was is out of service.
    """

    def __init__(
        self, specs: Sequence[KeySpec], journal: Journal, clock: Callable[[], datetime], went_on: Callable[[], None]
    ) -> None:
        """`clock` gives the time in UTC; `went_on` is called before each look at a key: there may be many."""
        self._plans: dict[str, list[Version]] = {}
        for spec in specs:
            self._plans.setdefault(spec.alias, []).append(Version(spec))
        self._journal = journal
        self._clock = clock
        self._went_on = went_on
        self._lock = threading.Lock()
        self._token_serial = self._crypto_user = ""

    def load(self, session: pkcs11.Session, token_serial: str, crypto_user: str) -> None:
        """Look at every version for the first time; raises `KeyRefusedError` for a key that has none to sign with."""
        self.look(session, token_serial, crypto_user)
        for alias, plan in self._plans.items():
            self._require_one(plan)
            self._journal.metrics.key_compliant.labels(alias).set(1)
        for spec in (version.spec for version in self.all() if version.spec.waived):
            self._journal.logger.warning(
                "key.checks_waived", key=spec.alias, label=spec.label, waived=sorted(spec.waived)
            )

    def look(self, session: pkcs11.Session, token_serial: str, crypto_user: str) -> None:
        """Look at every version for the first time, and refuse none; raises `HsmFault`."""
        self._token_serial, self._crypto_user = token_serial, crypto_user
        for version in self.all():
            self._went_on()
            try:
                self._know(version, checked_public_key(session, version.spec), lead_s=None)
            except KeyRefusedError as error:
                version.unfit, version.proven = error.message, False

    def aliases(self) -> tuple[str, ...]:
        """Name every key."""
        return tuple(self._plans)

    def key(self, alias: str, at: datetime | None = None) -> SigningKey:
        """Give the key in force; raises `UnknownKeyError`, `KeyNotReadyError`."""
        version = self._in_force(self._plan(alias), at or self._clock())
        if version is None or version.key is None:
            msg = "no version of this key may sign now: its time has not come, or it has not proven itself"
            raise KeyNotReadyError(msg)
        return version.key

    def versions(self, alias: str, at: datetime | None = None) -> list[KeyVersion]:
        """Give the versions as they are, eldest first; raises `UnknownKeyError`."""
        plan = self._plan(alias)
        found = states([version.candidate() for version in plan], at or self._clock())
        return [version.told(state) for version, state in zip(plan, found, strict=True) if state is not None]

    def expected(self, alias: str) -> list[KeyVersion]:
        """Give them as they are once every test signature that is still to come has been made."""
        now, plan = self._clock(), [replace(version) for version in self._plan(alias)]
        for version in plan:
            version.proven = version.unfit is None
        found = states([version.candidate() for version in plan], now)
        return [version.told(state) for version, state in zip(plan, found, strict=True) if state is not None]

    def plan(self, alias: str) -> Sequence[Version]:
        """Give what is known of each version, eldest first; raises `UnknownKeyError`."""
        return self._plan(alias)

    def in_force(self, alias: str, at: datetime | None = None) -> Version | None:
        """Give the version in force; None if there is none."""
        return self._in_force(self._plan(alias), at or self._clock())

    def to_look_up(self, alias: str) -> list[SigningKey]:
        """Give the keys that sign, or are to sign."""
        plan, now = self._plan(alias), self._clock()
        found = zip(plan, states([version.candidate() for version in plan], now), strict=True)
        return [
            version.key
            for version, state in found
            if state in (VersionState.ACTIVE, VersionState.UPCOMING)
            and version.key is not None
            and version.unfit is None
            and version.out_of_service is None
        ]

    def of(self, key: SigningKey) -> Version:
        """Give the version that a key belongs to."""
        return next(version for version in self._plans[key.alias] if version.key is key)

    def all(self) -> Iterator[Version]:
        """Give every version of every key."""
        return (version for plan in self._plans.values() for version in plan)

    def problems(self) -> tuple[str, ...]:
        """Say which keys are in force and out of service."""
        current = [self.in_force(alias) for alias in self._plans]
        return tuple(item.out_of_service for item in current if item is not None and item.out_of_service is not None)

    def examine(self, session: pkcs11.Session) -> list[Version]:
        """Look at every version again, and give those in force that are not there; raises `HsmFault`."""
        looked_at = [version for version in self.all() if not version.candidate().is_over(self._clock())]
        absent = [version for version in looked_at if not self._is_found(version, session)]
        in_force = [version for version in absent if self.in_force(version.spec.alias) is version]
        # Where none is seen the login is gone perhaps, which makes keys invisible.
        if len(absent) < len(looked_at):
            for version in absent:
                if version not in in_force:
                    self.lose_absent(version)
        return in_force

    def lose_absent(self, version: Version) -> str:
        """Keep a version from signing that is not in the HSM, and say so."""
        why = refused(version.spec, _ABSENT).message
        self.lose(version, why)
        return version.out_of_service or why

    def lose(self, version: Version, why: str) -> None:
        """Keep a version from signing, when its time comes or from now on, since it is not what it should be."""
        alias = version.spec.alias
        with self._lock:
            if self.in_force(alias) is not version:
                is_news, version.unfit, version.proven = version.unfit != why, why, False
                if is_news:
                    self._journal.logger.error("key.not_ready", key=alias, label=version.spec.label, reason=why)
                return
            is_news, version.out_of_service = version.out_of_service is None, f"out of service: {why}"
        if is_news:
            self._journal.logger.critical("key.drifted", key=alias, reason=why)
            self._journal.incident("key.drifted", why, alias)
            self._journal.metrics.key_compliant.labels(alias).set(0)

    def prove(self, key: SigningKey, error: SignerError | None, *, hsm_signs: bool) -> None:
        """Learn what became of a test signature, and whether the HSM signs at all at present."""
        version = self.of(key)
        with self._lock:
            if error is None:
                if not version.proven:
                    self._journal.logger.info("key.proven", key=key.alias, label=key.label)
                version.proven = True
            elif self.in_force(key.alias) is version:
                return
            elif isinstance(error, SignatureInvalidError) or (hsm_signs and not version.proven):
                version.proven, version.unproven = False, f"its test signature failed: {error.code}: {error.message}"

    def _is_found(self, version: Version, session: pkcs11.Session) -> bool:
        spec = version.spec
        self._went_on()
        if version.key is not None:
            spec = replace(spec, fingerprint=version.key.fingerprint)
        try:
            found = find_private_key(session, spec)
            if found is None:
                return False
            self._know(version, check_key(found, spec), spec.lead_s)
        except KeyRefusedError as error:
            self.lose(version, error.message)
        self._journal.metrics.key_checks.labels(spec.alias).inc()
        return True

    def _know(self, version: Version, public_key: RSAPublicKey, lead_s: float | None) -> None:
        """Take a key for what it should be; `lead_s` is None at the first look."""
        spec = version.spec
        with self._lock:
            if version.unfit is not None:
                version.published_at = now = self._clock()
                version.held_until = None if lead_s is None else now + timedelta(seconds=lead_s)
            if version.key is None:
                found = fingerprint(public_key)
                version.key = SigningKey(
                    spec.alias, spec.label, found, public_key, self._token_serial, self._crypto_user
                )
            version.unfit = None

    def _require_one(self, plan: list[Version]) -> None:
        now = self._clock()
        due = [version for version in plan if version.candidate().is_due(now) and not version.candidate().is_over(now)]
        if not due:
            raise refused(plan[0].spec, "none of its versions may sign now, by its active_from and verify_until")
        if all(version.unfit is not None for version in due):
            raise KeyRefusedError(due[-1].unfit or "")

    def _plan(self, alias: str) -> list[Version]:
        try:
            return self._plans[alias]
        except KeyError:
            msg = "no key with this alias is configured"
            raise UnknownKeyError(msg) from None

    @staticmethod
    def _in_force(plan: Sequence[Version], at: datetime) -> Version | None:
        index = in_force([version.candidate() for version in plan], at)
        return None if index is None else plan[index]
