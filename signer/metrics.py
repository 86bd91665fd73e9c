"""Every metric of the service, on an injected registry: seconds, bounded labels, nothing that a caller chooses."""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from signer import __version__

# 0.1 ms (a replay, a verification) to 10 s (a queue call in trouble); finest where an HSM answers, 1 to 10 ms.
LATENCY_BUCKETS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.00075),
    *(0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.006, 0.0075),
    *(0.01, 0.015, 0.025, 0.05, 0.075),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_AGE_BUCKETS_S: Final = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600)
_USE_BUCKETS: Final = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
_GROUP_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


class HsmMetrics:
    """What the HSM edge counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sessions = Gauge("signer_sessions", "Signing sessions by state: idle, busy.", ["state"], registry=registry)
        self.sessions_discarded = Counter(
            "signer_sessions_discarded", "Signing sessions thrown away, by reason.", ["reason"], registry=registry
        )
        self.session_age = Histogram(
            "signer_session_age_seconds",
            "How old signing sessions were when they were closed.",
            buckets=_AGE_BUCKETS_S,
            registry=registry,
        )
        self.session_uses = Histogram(
            "signer_session_uses",
            "How often signing sessions had been lent when they were closed.",
            buckets=_USE_BUCKETS,
            registry=registry,
        )
        self.oldest_session = Gauge(
            "signer_session_oldest_seconds", "Age of the oldest signing session that is open.", registry=registry
        )
        self.retries = Counter(
            "signer_hsm_retries", "Calls into the HSM that failed, by return code.", ["code"], registry=registry
        )
        self.mended = Counter(
            "signer_hsm_mended", "What it took to get the HSM back: login, rebuild.", ["by"], registry=registry
        )
        self.throttles = Counter(
            "signer_hsm_throttles", "Times a request waited because the HSM had enough to do.", registry=registry
        )
        self.hung_calls = Gauge(
            "signer_hsm_hung_calls", "Calls into the HSM that were given up and have not come back.", registry=registry
        )
        self.abandoned_calls = Counter(
            "signer_hsm_abandoned_calls", "Calls into the HSM that were given up.", registry=registry
        )
        self.breaker_open = Gauge(
            "signer_hsm_breaker_open", "1 while the HSM does not sign and nobody but a probe asks.", registry=registry
        )
        self.breaker_latched = Gauge(
            "signer_hsm_breaker_latched", "1 while the breaker stays open until a person clears it.", registry=registry
        )
        self.breaker_transitions = Counter(
            "signer_hsm_breaker_transitions",
            "What became of the breaker: open, half_open, closed, latched, cleared.",
            ["to"],
            registry=registry,
        )
        self.key_compliant = Gauge(
            "signer_key_compliant", "1 while the key is what it was at start, 0 once it drifted.", ["key"],
            registry=registry,
        )  # fmt: skip
        self.version_ready = Gauge(
            "signer_key_version_ready", "1 if the version passed its checks and a test signature.", ["key", "label"],
            registry=registry,
        )  # fmt: skip
        self.rotation_overdue = Gauge(
            "signer_key_rotation_overdue", "1 while a version's time has come and its elder signs on.", ["key"],
            registry=registry,
        )  # fmt: skip
        self.key_checks = Counter(
            "signer_key_checks", "Times the key's attributes were compared.", ["key"], registry=registry
        )


class AuthMetrics:
    """What the HTTP entrance counts about who is asking."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter(
            "signer_http_refused_credentials", "Credentials and TLS handshakes refused, by code.", ["code"],
            registry=registry,
        )  # fmt: skip
        self.tls_reloads = Counter(
            "signer_tls_reloads", "Times the TLS files changed: taken, refused.", ["outcome"], registry=registry
        )
        self.tls_stale = Gauge(
            "signer_tls_stale", "1 while the TLS files could not be taken, and earlier ones stay in force.",
            registry=registry,
        )  # fmt: skip
        self.tls_expires = Gauge(
            "signer_tls_expires_timestamp_seconds",
            "Unix time when the first of these runs out: certificate, client_ca, client_crl.",
            ["file"],
            registry=registry,
        )
        self.jwks_refreshes = Counter(
            "signer_jwks_refreshes", "Times the token issuer's keys were fetched: done, failed.", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.jwks_fetched = Gauge(
            "signer_jwks_fetched_timestamp_seconds", "Unix time of the last keys from the token issuer.",
            registry=registry,
        )  # fmt: skip


class PolicyMetrics:
    """What becomes of the policy's files."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reloads = Counter(
            "signer_policy_reloads", "Times a file of the policy changed: changed, refused.", ["result"],
            registry=registry,
        )  # fmt: skip
        self.stale = Gauge(
            "signer_policy_stale", "1 while a file of the policy is bad, and an earlier one stays in force.",
            registry=registry,
        )  # fmt: skip
        self.killed = Gauge(
            "signer_policy_killed", "How many the kill switch stops: key, caller.", ["kind"], registry=registry
        )
        self.unrecorded = Gauge(
            "signer_policy_unrecorded", "Changes of the policy that wait for the audit log.", registry=registry
        )
        self.refusals = Counter(
            "signer_policy_refusals", "Calls and transactions refused by the policy, on record or not, by code.",
            ["code"], registry=registry,
        )  # fmt: skip


class Metrics:
    """The metrics, registered once on `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.hsm = HsmMetrics(registry)
        self.auth = AuthMetrics(registry)
        self.policy = PolicyMetrics(registry)
        self.signatures = Counter(
            "signer_signatures", "Transactions by outcome.", ["key", "entrance", "outcome"], registry=registry
        )
        self.stage_seconds = Histogram(
            "signer_stage_seconds",
            "Where the time goes: admission, fetch, pool_wait, hsm_sign, verify, ledger, audit, forward, total.",
            ["entrance", "stage"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.verification_failures = Counter(
            "signer_verification_failures",
            "Signatures from the HSM that did not verify and were withheld.",
            ["key"],
            registry=registry,
        )
        self.security_events = Counter(
            "signer_security_events",
            "Transactions that somebody has to look into: transaction_conflict, signature_invalid.",
            ["code"],
            registry=registry,
        )
        self.batches = Counter(
            "signer_batches", "Batches: received, forwarded, quarantined, returned, lost_lease.", ["event"],
            registry=registry,
        )  # fmt: skip
        self.queue_transactions = Gauge(
            "signer_queue_transactions",
            "Transactions of the batches at hand, as far as they were read: waiting, at_work.",
            ["state"],
            registry=registry,
        )
        self.http_requests = Counter(
            "signer_http_requests", "HTTP answers by route and status.", ["route", "status"], registry=registry
        )
        self.http_in_flight = Gauge("signer_http_in_flight", "Signing requests admitted now.", registry=registry)
        self.http_unfinished_bodies = Gauge(
            "signer_http_unfinished_bodies", "Bodies that are on their way now, after their heads.", registry=registry
        )
        self.group_size = Histogram(
            "signer_commit_group_size",
            "Entries made durable by one commit, by store: ledger, audit.",
            ["store"],
            buckets=_GROUP_BUCKETS,
            registry=registry,
        )
        self.commit_failures = Counter(
            "signer_commit_failures", "Commits that could not be made durable.", ["store"], registry=registry
        )
        self.last_success = Gauge(
            "signer_last_success_timestamp_seconds", "Unix time of the last release.", ["entrance"], registry=registry
        )
        self.ready = Gauge("signer_ready", "1 while every key signs and audit takes records.", registry=registry)
        build = Gauge("signer_build_info", "Always 1.", ["version", "python"], registry=registry)
        build.labels(__version__, platform.python_version()).set(1)
        self._stages: dict[tuple[str, str], Histogram] = {}

    def stage(self, entrance: str, stage: str) -> Histogram:
        """Give where the seconds of a stage are counted; looked up once, for each signature counts towards several."""
        found = self._stages.get((entrance, stage))
        if found is None:
            found = self._stages[entrance, stage] = self.stage_seconds.labels(entrance, stage)
        return found


class Stopwatch:
    """Times the stages of one request or batch, for the histogram and for its one log line."""

    def __init__(self, metrics: Metrics, entrance: str) -> None:
        self._metrics = metrics
        self._entrance = entrance
        self._started_s = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` towards `stage`; one observation in the histogram."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._metrics.stage(self._entrance, stage).observe(seconds)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Time a block as `stage`, also when it raises."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started_s)

    def stop(self) -> dict[str, float]:
        """Record `total` and give the seconds of every stage, rounded to microseconds, ready for a log line."""
        self.add("total", time.perf_counter() - self._started_s)
        return {f"{stage}_s": round(seconds, 6) for stage, seconds in self.seconds.items()}


class Stopwatches:
    """The stopwatches of all that is done at the same time; what is there several times counts once."""

    def __init__(self, watches: Sequence[Stopwatch]) -> None:
        self._watches = {id(watch): watch for watch in watches}.values()

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Time a block as `stage` for all of them, also when it raises."""
        with ExitStack() as stack:
            for watch in self._watches:
                stack.enter_context(watch.stage(stage))
            yield
