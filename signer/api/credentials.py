"""Opens what tells who is asking, as the settings want it, and closes it in reverse."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime

from signer.api.auth import Accepted, Authenticator
from signer.api.jwks import KeySet, KeySource
from signer.api.refusals import RefusalLog
from signer.api.tls import TlsMaterial
from signer.api.tokens import TokenVerifier
from signer.api.trusted_proxies import TrustedProxies
from signer.http_settings import is_loopback
from signer.logs import Logger
from signer.metrics import Metrics
from signer.ports import AuditLog
from signer.settings import HttpSettings


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is asking, and what connections are made with."""

    authenticator: Authenticator
    refusals: RefusalLog
    tls: TlsMaterial | None


@contextmanager
def open_credentials(
    settings: HttpSettings, audit: AuditLog, metrics: Metrics, logger: Logger, wall_clock: Callable[[], datetime]
) -> Iterator[Credentials]:
    """Read the TLS files and fetch the keys of the token issuer; raises `ConfigurationError`.

    An issuer that cannot be reached is no reason not to start.
    """
    with ExitStack() as stack:
        refusals = RefusalLog(
            audit, metrics, logger, settings.audited_refusals_per_minute, (wall_clock, time.monotonic)
        )
        stack.callback(refusals.close)
        tls = None
        if settings.tls is not None:
            tls = stack.enter_context(closing(TlsMaterial(settings.tls, metrics.auth, logger, wall_clock)))
        tokens = None
        if settings.jwt is not None:
            keys = KeySet(KeySource(settings.jwt), settings.jwt, metrics.auth, logger, time.monotonic)
            stack.enter_context(closing(keys)).start()
            tokens = TokenVerifier(settings.jwt, keys, wall_clock)
        accepted = Accepted(
            settings.takes_certificates,
            tokens,
            TrustedProxies(settings.proxy.networks if settings.proxy is not None else ()),
            plain_tokens=settings.proxy is None and is_loopback(settings.host),
        )
        yield Credentials(Authenticator(accepted, refusals, wall_clock), refusals, tls)
