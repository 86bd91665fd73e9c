"""Is the service able to sign? Every key proves it with a real signature, at start and ever again."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from signer.deadlines import Deadline
from signer.errors import SignatureInvalidError, SignerError
from signer.logs import Logger
from signer.metrics import Metrics
from signer.ports import AuditEntry, AuditLog, KeyRing, RawSignature, SigningKey, SignTask, VersionState
from signer.signatures import DEFAULT_ALGORITHM
from signer.work import timestamp, what_signed

_LOOK_INTERVAL_S = 0.5
# A probe whose call hangs in the HSM must not keep the process from its end.
_CLOSING_TIMEOUT_S = 1.0
_PROBE_DOMAIN = b"signer readiness probe, not a transaction\n"


class Readiness:
    """Probes every key on a timer; a probe is audited like any use of a key, and its signature never leaves.

    Since the audit record is part of the probe, an audit log that cannot write makes the service not ready.
    """

    def __init__(
        self,
        key_ring: KeyRing,
        audit: AuditLog,
        metrics: Metrics,
        logger: Logger,
        wall_clock: Callable[[], datetime],
        interval_s: float,
    ) -> None:
        self._key_ring = key_ring
        self._audit = audit
        self._metrics = metrics
        self._logger = logger
        self._wall_clock = wall_clock
        self.interval_s = interval_s
        """Every key is looked at, and proves itself, this often."""
        self._problems: tuple[str, ...] = ("no probe has finished yet",)
        self._last_codes: dict[tuple[str, str], str | None] = {}
        self._unrecorded: list[AuditEntry] = []
        self._sources: list[Callable[[], tuple[str, ...]]] = []
        self._warning_sources: list[Callable[[], tuple[str, ...]]] = []
        self._others: list[tuple[str, Callable[[], None], Callable[[], bool]]] = []
        self._checked_at_s = self._looked_at_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)

    def start(self) -> None:
        """Probe now, and then every interval on a thread of its own."""
        self.probe()
        self._thread.start()

    def close(self) -> None:
        """Stop probing; not ready from now on. Safe to call at any time, also twice."""
        self._stopping.set()
        self._metrics.ready.set(0)
        if self._thread.ident is not None:
            self._thread.join(_CLOSING_TIMEOUT_S)
        _problems_of("incidents", self._record_incidents)

    def drain(self) -> None:
        """Say not ready, so that no more requests are sent here, while those that came are still answered."""
        self._stopping.set()
        self._metrics.ready.set(0)

    def watch(self, source: Callable[[], tuple[str, ...]]) -> None:
        """Let `source` have a say in `problems`, though not in `can_sign`."""
        self._sources.append(source)

    def heed(self, source: Callable[[], tuple[str, ...]]) -> None:
        """Let `source` have a say in `warnings`."""
        self._warning_sources.append(source)

    def warnings(self) -> tuple[str, ...]:
        """Say what a person has to look at while the service is ready all the same."""
        return tuple(warning for source in self._warning_sources for warning in source())

    def also_prove(self, name: str, prove: Callable[[], None], healthy: Callable[[], bool]) -> None:
        """Make something else part of every probe: `prove` raises `SignerError`.

        `healthy` tells at any time whether it failed since; then it is proven again at once.
        """
        self._others.append((name, prove, healthy))

    def can_sign(self) -> bool:
        """Tell whether a transaction that came now would be signed."""
        return not self._problems_of_signing()

    def problems(self) -> tuple[str, ...]:
        """Say why the service is not ready; empty when it is."""
        return self._problems_of_signing() or tuple(problem for source in self._sources for problem in source())

    def _problems_of_signing(self) -> tuple[str, ...]:
        if self._stopping.is_set():
            return ("the service is shutting down",)
        if time.monotonic() - self._checked_at_s > 3 * self.interval_s:
            return ("the last probe is too old",)
        return self._problems or self._failed_since()

    def _failed_since(self) -> tuple[str, ...]:
        others = tuple(f"{name}: it failed a moment ago" for name, _, healthy in self._others if not healthy())
        return self._key_ring.problems() + others

    def probe(self) -> None:
        """Let every key sign and verify one random digest, and note what went wrong."""
        # What happened comes first: no key proves itself before it is on record who cleared the breaker, and why.
        problems = _problems_of("incidents", self._record_incidents)
        if not problems:
            failures = self._prove_keys()
            keys = [(f"key {alias}", partial(self._require, alias, failures)) for alias in self._key_ring.aliases()]
            others = [(name, prove) for name, prove, _ in self._others]
            problems = tuple(problem for name, prove in keys + others for problem in _problems_of(name, prove))
        if problems != self._problems:
            self._logger.log(30 if problems else 20, "readiness.changed", ready=not problems, problems=list(problems))
        self._problems = problems
        self._checked_at_s = time.monotonic()
        self._metrics.ready.set(0 if problems else 1)

    def _record_incidents(self) -> None:
        self._unrecorded += self._key_ring.take_incidents()
        if self._unrecorded:
            self._audit.append(self._unrecorded)
            self._unrecorded = []

    def _prove_keys(self) -> dict[tuple[str, str], SignerError]:
        """Let every version sign that signs now or is to sign; give the errors of those that failed."""
        now = self._wall_clock()
        versions = [item for alias in self._key_ring.aliases() for item in self._key_ring.versions(alias, now)]
        keys = [item.key for item in versions if item.state is not VersionState.RETIRED and item.key is not None]
        failures: dict[tuple[str, str], SignerError] = {}
        for key in keys:
            try:
                self._prove(key)
            except SignerError as error:
                failures[key.name] = error
        for key in keys:
            self._key_ring.prove(key, failures.get(key.name), hsm_signs=len(failures) < len(keys))
        return failures

    def _require(self, alias: str, failures: Mapping[tuple[str, str], SignerError]) -> None:
        """Raise what kept the version in force from signing; another one's failure is a warning only."""
        error = failures.get(self._key_ring.key(alias, self._wall_clock()).name)
        if error is not None:
            raise error

    def _prove(self, key: SigningKey) -> None:
        digest = hashlib.sha256(_PROBE_DOMAIN + secrets.token_bytes(32)).digest()
        task = SignTask(key, DEFAULT_ALGORITHM, digest)
        (answer,) = self._key_ring.sign([task], Deadline.after(self.interval_s), probing=True)
        error = answer if isinstance(answer, SignerError) else self._verify(answer)
        code = error.code if error is not None else None
        # Every use of a key is recorded; an outage once for each thing that is wrong, not twice a second.
        if isinstance(answer, RawSignature) or self._last_codes.get(key.name) != code:
            self._audit.append([_entry(task, answer, code, timestamp(self._wall_clock()))])
        self._last_codes[key.name] = code
        if error is not None:
            raise error

    def _verify(self, signature: RawSignature) -> SignerError | None:
        if signature.sound:
            return None
        self._metrics.verification_failures.labels(signature.task.key.alias).inc()
        return SignatureInvalidError("the signature of the probe does not verify")

    def _run(self) -> None:
        while not self._stopping.wait(min(_LOOK_INTERVAL_S, self.interval_s)):
            # Whatever is wrong: the key that ends it may have come, and others rely on its being found in time.
            looks = time.monotonic() - self._looked_at_s >= self.interval_s
            if looks:
                self._key_ring.check_keys()
                self._looked_at_s = time.monotonic()
            due = looks or time.monotonic() - self._checked_at_s >= self.interval_s
            # While something is wrong it is probed all the time: the first signature that comes ends the outage.
            was_wrong = bool(self._problems)
            if due or was_wrong or self._failed_since():
                self.probe()
            if was_wrong and not self._problems:
                # Looks were in vain while the HSM did not answer; the next is not to wait for its turn.
                self._looked_at_s -= self.interval_s
            _problems_of("incidents", self._record_incidents)


def _problems_of(name: str, prove: Callable[[], None]) -> tuple[str, ...]:
    try:
        prove()
    except SignerError as error:
        return (f"{name}: {error.code}: {error.message}",)
    return ()


def _entry(task: SignTask, answer: RawSignature | SignerError, code: str | None, now: str) -> AuditEntry:
    entry = AuditEntry(
        time=now,
        operation="probe",
        outcome="done" if code is None else "failed",
        error_code=code,
        entrance="service",
        key_alias=task.key.alias,
        algorithm=task.algorithm.name,
        mechanism=task.algorithm.mechanism,
        digest="sha256:" + task.digest.hex(),
    )
    return entry if isinstance(answer, SignerError) else replace(entry, **what_signed(task.key, answer))
