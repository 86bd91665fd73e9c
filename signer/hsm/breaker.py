"""Open while the HSM does not sign: who asks then is told at once, and only a probe goes through."""

import threading
from typing import Final

from signer.errors import HsmUnavailableError
from signer.logs import Logger
from signer.metrics import Metrics

_FAILURES_TO_OPEN: Final = 3


class Breaker:
    """Opens after several requests in a row failed for good, each with its own tries; one success closes it."""

    def __init__(self, metrics: Metrics, logger: Logger) -> None:
        self._metrics = metrics
        self._logger = logger
        self._lock = threading.Lock()
        self._failures = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why it is open; None while it is closed."""
        return self._reason

    def check(self) -> None:
        """Raise `HsmUnavailableError` while it is open."""
        reason = self._reason
        if reason is not None:
            msg = f"the HSM does not sign at present: {reason}"
            raise HsmUnavailableError(msg)

    def succeeded(self) -> None:
        """Note a signature."""
        if self._failures:
            with self._lock:
                self._failures = 0
                self._set(None)

    def failed(self, reason: str) -> None:
        """Note that a request failed, after all its tries, because of the HSM."""
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_TO_OPEN:
                self._set(reason)

    def _set(self, reason: str | None) -> None:
        if (reason is None) != (self._reason is None):
            self._metrics.breaker_open.set(0 if reason is None else 1)
            self._logger.warning("hsm.breaker", state="closed" if reason is None else "open", reason=reason)
        self._reason = reason
