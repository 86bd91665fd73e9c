"""The composition root: from settings to a running service, opened in order and closed in reverse."""

import ctypes
import faulthandler
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from signer import __version__, logs
from signer.api.app import create_app
from signer.api.server import ApiServer
from signer.audit.file import FileAuditLog
from signer.audit.segments import ChainDirectory
from signer.errors import ConfigurationError, UnavailableError
from signer.hsm.attestation import Attestation, attest
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.errors import HsmFault
from signer.hsm.journal import Journal
from signer.hsm.keyring import HsmKeyRing, Limits
from signer.hsm.latch import Latch
from signer.hsm.module import Module, crypto_user_of
from signer.ledger.sqlite import SqliteLedger
from signer.metrics import Metrics
from signer.policy import Policy
from signer.ports import AuditEntry, Claim, Claimed, SigningKey
from signer.readiness import Readiness
from signer.settings import HttpSettings, Settings, SqsSettings, read_pin
from signer.signing import SigningService
from signer.sqs.client import make_client
from signer.sqs.consumer import Consumer
from signer.work import timestamp

# Beside sysexits.h: the cure is another process, on another machine if need be.
EXIT_HSM_HANGS: Final = 86
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def utc_now() -> datetime:
    """Give the wall clock's time."""
    return datetime.now(UTC)


def key_specs(settings: Settings) -> list[KeySpec]:
    """Turn the settings of every key into what the HSM edge checks."""
    return [KeySpec(alias, key.label, key.fingerprint, frozenset(key.waive)) for alias, key in settings.keys.items()]


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
    with closing(Connection(hsm.module, hsm.token, lambda: read_pin(hsm), journal)) as connection:
        limits = Limits(sessions, hsm.call_timeout_s, _end_process)
        latch = Latch(settings.latch_file)
        key_ring = HsmKeyRing(connection, crypto_user, key_specs(settings), limits, latch, journal)
        with closing(key_ring):
            yield key_ring


def _end_process() -> None:
    """Let the orchestrator replace a process whose threads hang in the HSM; nothing else gets rid of them."""
    faulthandler.dump_traceback()
    os._exit(EXIT_HSM_HANGS)


def checked_keys(settings: Settings) -> list[SigningKey]:
    """Give every configured key after its checks; raises `KeyRefusedError`."""
    with open_key_ring(settings, Metrics(CollectorRegistry()), logs.get("signer"), sessions=1) as key_ring:
        return [key_ring.key(alias) for alias in key_ring.aliases()]


def attest_keys(settings: Settings) -> list[Attestation]:
    """Examine every configured key, right or wrong; spends one login, signs nothing. Raises `SignerError`."""
    forbid_core_files()
    pin = read_pin(settings.hsm)
    crypto_user = crypto_user_of(pin, settings.hsm.crypto_user)
    with closing(Module(settings.hsm.module, settings.hsm.token)) as module:
        try:
            module.log_in(pin)
        except HsmFault as fault:
            raise fault.error from None
        return attest(module, key_specs(settings), crypto_user, timestamp(utc_now()))


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises `SignerError` if it cannot start, and `UnavailableError` if work was cut off at the end of the drain time.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logs.configure(settings.log_level)
    logger = logs.get("signer")
    with _open_core(settings, logger) as core:
        drained = _run(core, settings, logger, stop)
    logger.info("service.stopped", drained=drained)
    if not drained:
        msg = "the drain time ended before the work did; what was cut off is still in the queue"
        raise UnavailableError(msg)


@dataclass(frozen=True, slots=True)
class _Core:
    """What both entrances stand on."""

    service: SigningService
    readiness: Readiness
    audit: FileAuditLog
    ledger: SqliteLedger
    metrics: Metrics


@contextmanager
def _open_core(settings: Settings, logger: logs.Logger) -> Iterator[_Core]:
    metrics = Metrics(CollectorRegistry())
    with ExitStack() as stack:
        audit, ledger = stack.enter_context(_open_stores(settings, metrics, logger))
        key_ring = stack.enter_context(open_key_ring(settings, metrics, logger, settings.hsm.sessions))
        key_ring.warm_up(settings.hsm.warm_up_interval_s)
        policy = Policy({alias: key.callers for alias, key in settings.keys.items()})
        service = SigningService(key_ring, ledger, audit, policy, metrics, utc_now)
        readiness = Readiness(key_ring, audit, metrics, logger, utc_now, settings.readiness_interval_s)
        stack.enter_context(closing(readiness))
        readiness.watch(ledger.problems)
        readiness.also_prove("ledger", partial(_prove, ledger), lambda: ledger.healthy)
        # Every probe of a key appends a record: what remains is to hear of a failure in between.
        readiness.also_prove("audit log", lambda: None, lambda: audit.healthy)
        yield _Core(service, readiness, audit, ledger, metrics)


def _prove(ledger: SqliteLedger) -> None:
    """Claim what no caller can name, and take it back: two durable commits that leave nothing."""
    claimed = ledger.claim([Claim("~", "~readiness", bytes(32), "~")])
    ledger.withdraw([claim for claim in claimed if isinstance(claim, Claimed)])


@contextmanager
def _open_stores(
    settings: Settings, metrics: Metrics, logger: logs.Logger
) -> Iterator[tuple[FileAuditLog, SqliteLedger]]:
    """Open audit log and ledger, which are made together: where only one of them is new, the other one's twin is gone.

    Raises `ConfigurationError` then, and makes none, unless the settings say `accept_new`.
    """
    with ExitStack() as stack:
        chain = ChainDirectory(settings.audit.directory, settings.audit.segment_bytes, logger, utc_now)
        audit = stack.enter_context(closing(FileAuditLog(chain, settings.audit.commit_timeout_s, metrics)))
        ledger = SqliteLedger(
            settings.ledger.path,
            settings.ledger.lease_s,
            settings.ledger.commit_timeout_s,
            metrics,
            time.time,
            may_be_new=audit.is_new or settings.ledger.accept_new,
        )
        stack.enter_context(closing(ledger))
        if audit.is_new and not (ledger.is_new or settings.audit.accept_new):
            msg = (
                f"the audit log {settings.audit.directory} is gone or empty, while the ledger {settings.ledger.path} "
                "was in use: put it back. If it is lost for good: audit.accept_new = true"
            )
            raise ConfigurationError(msg)
        made = [what for what, is_new in (("audit log", audit.is_new), ("ledger", ledger.is_new)) if is_new]
        if made:
            # At once, before a start that fails later leaves a new ledger beside an audit log without a record.
            _record(audit, "store.begin", ", ".join([f"new: {' and '.join(made)}", *_accepted(settings)]))
        yield audit, ledger


def _accepted(settings: Settings) -> list[str]:
    """Name the settings that let a lost file be replaced, where they are set."""
    flags = {"audit.accept_new": settings.audit.accept_new, "ledger.accept_new": settings.ledger.accept_new}
    return [f"{name} is set" for name, is_set in flags.items() if is_set]


def _run(core: _Core, settings: Settings, logger: logs.Logger, stop: threading.Event) -> bool:
    """Open the entrances, wait for `stop`, close them; tells whether all work was finished."""
    # Built before anything listens or is recorded: it may still find its settings wrong.
    consumer = _build_consumer(core, settings, settings.sqs, logger) if settings.sqs is not None else None
    _record(core.audit, "service.start", ", ".join([f"signer {__version__}", *_accepted(settings)]))
    core.readiness.start()
    with ExitStack() as stack:
        server = _start_api(core, settings, settings.http, logger) if settings.http is not None else None
        if server is not None:
            stack.callback(server.close)
        if consumer is not None:
            core.readiness.watch(consumer.problems)
            # A service that cannot sign must not spend the receive counts of the batches.
            consumer.start(may_poll=lambda: core.readiness.can_sign() and not core.ledger.problems())
        logger.info("service.started", version=__version__, keys=list(settings.keys))
        stop.wait()
        logger.info("service.stopping")
        core.readiness.drain()
        drained = consumer.drain(settings.drain_timeout_s) if consumer is not None else True
        cut_off = server.close() if server is not None else False
    _record(core.audit, "service.stop", f"signer {__version__}")
    return drained and not cut_off


def _start_api(core: _Core, settings: Settings, http: HttpSettings, logger: logs.Logger) -> ApiServer:
    app = create_app(core.service, core.readiness, core.metrics, http, settings.signing_timeout_s, logger)
    server = ApiServer(app, http, logger, settings.drain_timeout_s)
    server.start()
    return server


def _build_consumer(core: _Core, settings: Settings, sqs: SqsSettings, logger: logs.Logger) -> Consumer:
    return Consumer(make_client(sqs), sqs, core.service, core.metrics, logger, settings.signing_timeout_s)


def _record(audit: FileAuditLog, operation: str, detail: str) -> None:
    audit.append([AuditEntry(timestamp(utc_now()), operation, "done", entrance="service", detail=detail)])
