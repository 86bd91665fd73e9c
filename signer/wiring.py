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
from typing import Final

from prometheus_client import CollectorRegistry

from signer import __version__, logs
from signer.api.app import create_app
from signer.api.server import ApiServer
from signer.audit.file import FileAuditLog
from signer.audit.segments import ChainDirectory
from signer.errors import UnavailableError
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.keyring import HsmKeyRing, Limits
from signer.hsm.module import crypto_user_of
from signer.ledger.sqlite import SqliteLedger
from signer.metrics import Metrics
from signer.policy import Policy
from signer.ports import AuditEntry, SigningKey
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
    with closing(Connection(hsm.module, hsm.token, lambda: read_pin(hsm), metrics, logger)) as connection:
        limits = Limits(sessions, hsm.call_timeout_s, _end_process)
        key_ring = HsmKeyRing(connection, crypto_user, key_specs(settings), limits, metrics, logger)
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
    metrics: Metrics


@contextmanager
def _open_core(settings: Settings, logger: logs.Logger) -> Iterator[_Core]:
    metrics = Metrics(CollectorRegistry())
    with ExitStack() as stack:
        chain = ChainDirectory(settings.audit.directory, settings.audit.segment_bytes, logger, utc_now)
        audit = stack.enter_context(closing(FileAuditLog(chain, settings.audit.commit_timeout_s, metrics)))
        ledger = SqliteLedger(
            settings.ledger.path, settings.ledger.lease_s, settings.ledger.commit_timeout_s, metrics, time.time
        )
        stack.enter_context(closing(ledger))
        key_ring = stack.enter_context(open_key_ring(settings, metrics, logger, settings.hsm.sessions))
        key_ring.warm_up(settings.hsm.warm_up_interval_s)
        policy = Policy({alias: key.callers for alias, key in settings.keys.items()})
        service = SigningService(key_ring, ledger, audit, policy, metrics, utc_now)
        readiness = Readiness(key_ring, audit, metrics, logger, utc_now, settings.readiness_interval_s)
        stack.enter_context(closing(readiness))
        yield _Core(service, readiness, audit, metrics)


def _run(core: _Core, settings: Settings, logger: logs.Logger, stop: threading.Event) -> bool:
    """Open the entrances, wait for `stop`, close them; tells whether all work was finished."""
    # Built before anything listens or is recorded: it may still find its settings wrong.
    consumer = _build_consumer(core, settings, settings.sqs, logger) if settings.sqs is not None else None
    _record(core, "service.start")
    core.readiness.start()
    with ExitStack() as stack:
        if settings.http is not None:
            stack.enter_context(closing(_start_api(core, settings, settings.http, logger)))
        if consumer is not None:
            core.readiness.watch(consumer.problems)
            # A service that cannot sign must not spend the receive counts of the batches.
            consumer.start(may_poll=core.readiness.can_sign)
        logger.info("service.started", version=__version__, keys=list(settings.keys))
        stop.wait()
        logger.info("service.stopping")
        core.readiness.drain()
        drained = consumer.drain(settings.drain_timeout_s) if consumer is not None else True
    _record(core, "service.stop")
    return drained


def _start_api(core: _Core, settings: Settings, http: HttpSettings, logger: logs.Logger) -> ApiServer:
    app = create_app(core.service, core.readiness, core.metrics, http, settings.signing_timeout_s, logger)
    server = ApiServer(app, http, logger, settings.drain_timeout_s)
    server.start()
    return server


def _build_consumer(core: _Core, settings: Settings, sqs: SqsSettings, logger: logs.Logger) -> Consumer:
    return Consumer(make_client(sqs), sqs, core.service, core.metrics, logger, settings.signing_timeout_s)


def _record(core: _Core, operation: str) -> None:
    entry = AuditEntry(timestamp(utc_now()), operation, "done", entrance="service", detail=f"signer {__version__}")
    core.audit.append([entry])
