"""The composition root: from settings to a running service, opened in order and closed in reverse."""

import ctypes
import faulthandler
import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from signer import __version__, failpoints, logs, stop_signals
from signer.allocator import keep_memory_small
from signer.api.app import create_app, create_health_app
from signer.api.credentials import open_credentials
from signer.api.parts import Parts
from signer.api.server import ApiServer
from signer.audit.file import FileAuditLog
from signer.deadlines import Deadline
from signer.errors import UnavailableError
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.hung_calls import HungCalls
from signer.hsm.journal import Journal
from signer.hsm.keyring import HsmKeyRing
from signer.hsm.latch import Latch
from signer.hsm.module import crypto_user_of
from signer.inquiries import Inquiries
from signer.ledger.register import open_register
from signer.metrics import Metrics
from signer.policy import Grant, policy_of
from signer.policy_watch import PolicySource, PolicyWatch
from signer.readiness import Readiness
from signer.rehearsal import Rehearsal
from signer.settings import HttpSettings, Settings, SqsSettings, read_pin
from signer.signing import SigningService
from signer.sqs.client import make_clients
from signer.sqs.consumer import Consumer
from signer.stores import Ledger, accepted, open_stores, prove, record
from signer.versions import LEAD_LOOKS

# Beside sysexits.h: the cure is another process, on another machine if need be.
EXIT_HSM_HANGS: Final = 86
_SWITCH_S: Final = 0.001
_KEPT_FOR_ANSWERS_S: Final = 5.0
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def utc_now() -> datetime:
    """Give the wall clock's time."""
    return datetime.now(UTC)


def key_specs(settings: Settings) -> list[KeySpec]:
    """Turn the settings of every version of every key into what the HSM edge checks."""
    lead_s = LEAD_LOOKS * settings.readiness_interval_s
    return [
        KeySpec(alias, item.label, item.fingerprint, frozenset(item.waive), item.active_from, item.verify_until, lead_s)
        for alias, key in settings.keys.items()
        for item in key.plan
    ]


def policy_source(settings: Settings) -> PolicySource:
    """Say where the policy comes from: a file, or what the settings say with each key."""
    grants = (
        (caller, alias, Grant(requires_transaction_id=key.require_transaction_id))
        for alias, key in settings.keys.items()
        for caller in key.callers
    )
    per_minute = settings.policy.audited_refusals_per_minute
    return PolicySource(settings.policy.file, settings.kill_file, policy_of(grants), per_minute)


def forbid_core_files() -> None:
    """Keep the PIN out of core files: of those the kernel writes, and of those it pipes to a program (core(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def open_key_ring(settings: Settings, metrics: Metrics, logger: logs.Logger, sessions: int) -> Iterator[HsmKeyRing]:
    """Load the module, log in, check every key; the module is finalised last."""
    forbid_core_files()
    hsm = settings.hsm
    crypto_user = crypto_user_of(read_pin(hsm), hsm.crypto_user)
    # Read again for every login: it need not stay in memory, and a rotated one is found.
    journal = Journal(metrics.hsm, logger, utc_now)
    with ExitStack() as stack:
        hung_calls = HungCalls(hsm.call_timeout_s, sessions, _end_process, journal)
        stack.enter_context(closing(hung_calls))
        connection = Connection(hsm.module, hsm.token, lambda: read_pin(hsm), hung_calls, journal)
        stack.enter_context(closing(connection))
        latch = Latch(settings.latch_file)
        key_ring = HsmKeyRing(connection, crypto_user, key_specs(settings), sessions, latch, journal)
        yield stack.enter_context(closing(key_ring))


def _end_process() -> None:
    """Let the orchestrator replace a process whose threads hang in the HSM; nothing else gets rid of them."""
    faulthandler.dump_traceback()
    os._exit(EXIT_HSM_HANGS)


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises `SignerError` if it cannot start, and `UnavailableError` if work was cut off at the end of the drain time.
    """
    keep_memory_small()
    stop_signals.hold()
    logs.configure(settings.log_level)
    logger = logs.get("signer")
    if settings.failpoint is not None:
        name, _, times = settings.failpoint.partition(":")
        failpoints.arm(name, int(times))
        logger.warning("failpoint.armed", name=name, times=int(times))
    with _open_core(settings, logger) as core:
        drained = _run(core, settings, logger)
    logger.info("service.stopped", drained=drained)
    if not drained:
        msg = "the drain time ended before the work did; what was cut off is still in the queue"
        raise UnavailableError(msg)


@dataclass(frozen=True, slots=True)
class _Core:
    """What both entrances stand on."""

    service: SigningService
    inquiries: Inquiries
    rehearsal: Rehearsal
    readiness: Readiness
    audit: FileAuditLog
    ledger: Ledger
    metrics: Metrics
    policy: PolicyWatch


@contextmanager
def _open_core(settings: Settings, logger: logs.Logger) -> Iterator[_Core]:
    metrics = Metrics(CollectorRegistry())
    with ExitStack() as stack:
        audit, ledger = stack.enter_context(open_stores(settings, metrics, logger, utc_now))
        key_ring = stack.enter_context(open_key_ring(settings, metrics, logger, settings.hsm.sessions))
        key_ring.warm_up(settings.hsm.warm_up_interval_s)
        watch = PolicyWatch(policy_source(settings), audit, metrics.policy, logger, utc_now, time.monotonic)
        stack.enter_context(closing(watch))
        service = SigningService(key_ring, ledger, audit, watch.authority, metrics, utc_now)
        readiness = Readiness(key_ring, audit, metrics, logger, utc_now, settings.readiness_interval_s)
        stack.enter_context(closing(readiness))
        readiness.watch(ledger.problems)
        readiness.also_prove("ledger", partial(prove, ledger), lambda: ledger.healthy)
        # Every probe of a key appends a record: what remains is to hear of a failure in between.
        readiness.also_prove("audit log", lambda: None, lambda: audit.healthy)
        readiness.heed(watch.warnings)
        readiness.heed(key_ring.warnings)
        register = stack.enter_context(open_register(settings.ledger))
        inquiries = Inquiries(key_ring, register, audit, watch.authority, utc_now)
        rehearsal = Rehearsal(key_ring, register, audit, watch.authority, utc_now)
        yield _Core(service, inquiries, rehearsal, readiness, audit, ledger, metrics, watch)


def _run(core: _Core, settings: Settings, logger: logs.Logger) -> bool:
    """Open the entrances, wait for a signal to stop, close them; tells whether all work was finished."""
    with ExitStack() as stack:
        # Built before anything listens or is recorded: they may still find their settings wrong.
        consumer = _build_consumer(core, settings, settings.sqs, logger) if settings.sqs is not None else None
        open_api = _build_api(core, settings, settings.http, logger, stack) if settings.http is not None else None
        record(core.audit, utc_now(), "service.start", ", ".join([f"signer {__version__}", *accepted(settings)]))
        core.policy.start()
        core.readiness.start()
        server = open_api() if open_api is not None else None
        if consumer is not None:
            core.readiness.watch(consumer.problems)
            # What cannot be signed must not spend the receive counts of the batches: neither in an outage, nor while a
            # person has stopped it.
            consumer.start(may_poll=partial(_may_begin, core, consumer.caller))
        _keep_pauses_short()
        logger.info("service.started", version=__version__, keys=list(settings.keys))
        stop_signals.wait()
        logger.info("service.stopping")
        core.readiness.drain()
        drained = _drain(consumer, server, settings.drain_timeout_s)
    record(core.audit, utc_now(), "service.stop", f"signer {__version__}")
    return drained


def _drain(consumer: Consumer | None, server: ApiServer | None, timeout_s: float) -> bool:
    """Let both entrances finish what was begun, within one drain time for both; tells whether they did.

    HTTP is answered until the batches are done: whoever balances the load learns only by and by not to ask here.
    """
    over = Deadline.after(timeout_s)
    kept_s = min(_KEPT_FOR_ANSWERS_S, timeout_s / 4) if server is not None else 0.0
    drained = consumer.drain(timeout_s - kept_s) if consumer is not None else True
    cut_off = server.close(over.remaining_s()) if server is not None else False
    return drained and not cut_off


def _may_begin(core: _Core, caller: str) -> bool:
    return core.readiness.can_sign() and not core.ledger.problems() and core.policy.authority.may_begin(caller)


def _keep_pauses_short() -> None:
    """Let a single transaction not wait while a batch of thousands is read, rendered or collected.

    Measured beside a batch of 10,000: full collections held everybody up for 50 to 75 ms, since each went through all
    that was ever imported; and who wants the interpreter gets it after 1 ms, not after 5.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_S)


def _build_api(
    core: _Core, settings: Settings, http: HttpSettings, logger: logs.Logger, stack: ExitStack
) -> Callable[[], ApiServer]:
    """Give what opens the HTTP entrance; `stack` closes it."""
    opened = open_credentials(http, core.audit, core.metrics, logger, utc_now)
    credentials = stack.enter_context(opened)
    if credentials.tls is not None:
        core.readiness.heed(credentials.tls.warnings)
    parts = Parts(
        core.service,
        core.inquiries,
        core.rehearsal,
        core.readiness,
        core.policy.authority,
        credentials.authenticator,
        core.metrics,
        logger,
        http,
        settings.signing_timeout_s,
        settings.hsm.sessions,
    )
    server = ApiServer(create_app(parts), http, logger, settings.drain_timeout_s, credentials)

    def start() -> ApiServer:
        health = ApiServer(create_health_app(parts), http.health, logger, 0) if http.health is not None else None
        if health is not None:
            stack.callback(health.close)
        stack.callback(server.close)
        server.start()
        # Not before: who hears that the service is ready sends requests.
        if health is not None:
            health.start()
        return server

    return start


def _build_consumer(core: _Core, settings: Settings, sqs: SqsSettings, logger: logs.Logger) -> Consumer:
    return Consumer(make_clients(sqs), sqs, core.service, core.metrics, logger, settings.signing_timeout_s)
