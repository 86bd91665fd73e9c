"""The composition root: from settings to a running service, opened in order and closed in reverse."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from signer import logs
from signer.hsm.compliance import KeySpec
from signer.hsm.keyring import HsmKeyRing
from signer.hsm.module import Module, crypto_user_of
from signer.metrics import Metrics
from signer.settings import KeySettings, Settings, read_pin


def utc_now() -> datetime:
    """Give the wall clock's time."""
    return datetime.now(UTC)


def key_specs(settings: Settings) -> list[KeySpec]:
    """Turn the settings of every key into what the HSM edge checks."""
    return [
        KeySpec(alias, key.label, key.fingerprint, frozenset(key.waive)) for alias, key in settings.keys.items()
    ]  # fmt: skip


@contextmanager
def open_key_ring(settings: Settings, metrics: Metrics, logger: logs.Logger, sessions: int) -> Iterator[HsmKeyRing]:
    """Load the module, log in, check every key; the module is finalised last."""
    pin = read_pin(settings.hsm)
    crypto_user = crypto_user_of(pin, settings.hsm.crypto_user)
    with closing(Module(settings.hsm.module, settings.hsm.token)) as module:
        module.log_in(pin)
        key_ring = HsmKeyRing(module, crypto_user, key_specs(settings), sessions, metrics, logger)
        with closing(key_ring):
            yield key_ring


def checked_keys(settings: Settings) -> list[SigningKey]:
    """Give every configured key after its checks; raises `KeyRefusedError`."""
    with open_key_ring(settings, Metrics(CollectorRegistry()), logs.get("signer"), sessions=1) as key_ring:
        return [key_ring.key(alias) for alias in key_ring.aliases()]


def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT; raises `SignerError` if it cannot start."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # A core file would hold the PIN.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logs.configure(settings.log_level)
    logger = logs.get("signer")
    metrics = Metrics(CollectorRegistry())
    with ExitStack() as stack:
        audit = stack.enter_context(closing(_open_audit(settings, metrics)))
        ledger = stack.enter_context(closing(_open_ledger(settings, metrics)))
        key_ring = stack.enter_context(open_key_ring(settings, metrics, logger, settings.hsm.sessions))
        key_ring.warm_up(settings.hsm.warm_up_interval_s)
        policy = Policy({alias: key.callers for alias, key in settings.keys.items()})
        service = SigningService(key_ring, ledger, audit, policy, metrics, utc_now)
        readiness = Readiness(key_ring, audit, metrics, logger, utc_now, settings.readiness_interval_s)
        stack.enter_context(closing(readiness))
        readiness.start()
        _start_entrances(settings, service, readiness, metrics, stack)
        _record(audit, "service.start")
        logger.info("service.started", version=__version__, keys=list(settings.keys))
        stop.wait()
        logger.info("service.stopping")
        readiness.drain()
    _record
