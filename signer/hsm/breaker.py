"""Open while the HSM does not sign: who asks then is told at once, and only a probe goes through."""

import threading
from enum import StrEnum
from typing import Final

from signer.errors import ConfigurationError, HsmUnavailableError
from signer.hsm.journal import Journal
from signer.hsm.latch import Latch, Latched

_FAILURES_TO_OPEN: Final = 3
_WRONG_SIGNATURES_TO_LATCH: Final = 2


class Trouble(StrEnum):
    """What opens the breaker; each has its entry in docs/recovery.md."""

    ERROR = "error"
    """Calls fail with return codes that neither another session nor a login mends."""
    LOST = "lost"
    """The module cannot be loaded, initialised or logged in."""
    LOGIN = "login"
    """The PIN was refused."""
    THROTTLED = "throttled"
    """The HSM says not now, for as long as requests last."""
    HUNG = "hung"
    """Calls do not come back."""
    WRONG_SIGNATURES = "wrong_signatures"
    """Two signatures in a row did not verify: open until a person clears it."""


class Breaker:
    """Opens after several requests in a row failed for good, each with its own tries; a sound signature closes it.

    After two wrong signatures in a row it is latched: then even probes are refused, and so they are by the next process
    that is started over the same latch file.
    """

    def __init__(self, latch: Latch, journal: Journal) -> None:
        """Begin latched if the file says so; raises `ConfigurationError` if it cannot be read."""
        self._latch = latch
        self._journal = journal
        self._lock = threading.Lock()
        self._failures = 0
        self._wrong_signatures = 0
        self._clearing_told = False
        self._reason: str | None = None
        self._trouble: Trouble | None = None
        self._probes = 0
        self._latched = False
        found = latch.read()
        if found is not None:
            self._hold(found)

    @property
    def reason(self) -> str | None:
        """Why it is open; None while it is closed."""
        return self._reason

    def check(self, *, probing: bool) -> None:
        """Raise `HsmUnavailableError` while it is open, but for a probe: it is half open then."""
        reason = self._reason
        if reason is None:
            return
        if not (probing and self._lets_probes_through()):
            msg = f"the HSM does not sign at present: {reason}"
            raise HsmUnavailableError(msg)
        self._half_open()

    def failed(self, trouble: Trouble, reason: str, *, at_once: bool = False) -> None:
        """Note that a request failed, after all its tries, because of the HSM; `at_once`: the next would, too."""
        with self._lock:
            self._failures = max(self._failures + 1, _FAILURES_TO_OPEN if at_once else 0)
            if self._failures >= _FAILURES_TO_OPEN and not self._latched:
                self._open(trouble, reason)

    def verified(self) -> None:
        """Note a signature that verified."""
        if self._failures or self._wrong_signatures or self._reason is not None:
            with self._lock:
                self._failures = self._wrong_signatures = 0
                # What was on its way when the latch fell does not lift it.
                if not self._latched and self._reason is not None:
                    self._reason = self._trouble = None
                    self._tell("closed", f"after {self._probes} probes")

    def wrong_signature(self) -> None:
        """Note a signature that did not verify."""
        with self._lock:
            self._wrong_signatures += 1
            if self._wrong_signatures < _WRONG_SIGNATURES_TO_LATCH or self._latched:
                return
            latched = Latched("two signatures in a row did not verify", self._journal.now())
            try:
                self._latch.set(latched)
            except ConfigurationError as error:
                # This process stays latched all the same; only its successor would not know.
                self._journal.logger.critical("hsm.latch_not_written", reason=error.message)
            self._hold(latched)

    def _hold(self, latched: Latched) -> None:
        self._latched, self._trouble = True, Trouble.WRONG_SIGNATURES
        self._reason = f"{Trouble.WRONG_SIGNATURES}: {latched.reason}; a person must look and clear it"
        self._journal.metrics.breaker_latched.set(1)
        self._tell("latched", f"{self._reason}; since {latched.since}")

    def _open(self, trouble: Trouble, reason: str) -> None:
        if self._reason is None:
            self._probes = 0
        is_news, self._trouble = trouble is not self._trouble, trouble
        self._reason = f"{trouble}: {reason}"
        if is_news:
            self._tell("open", self._reason)

    def _half_open(self) -> None:
        """Count every probe, and tell of the first: an outage of a night would fill the audit log otherwise."""
        with self._lock:
            self._probes += 1
            if self._probes == 1:
                self._tell("half_open", "probes go through")
            else:
                self._journal.metrics.breaker_transitions.labels("half_open").inc()

    def _lets_probes_through(self) -> bool:
        with self._lock:
            if not self._latched:
                return True
            latched = self._latch.read()
            if latched is None or latched.cleared_by is None:
                return False
            if not self._clearing_told:
                # Not before the next probe, which waits until this stands in the audit log.
                self._clearing_told = True
                self._tell("cleared", f"by {latched.cleared_by}: {latched.cleared_because}")
                return False
            self._latch.remove()
            self._latched = self._clearing_told = False
            self._probes = 0
            # One more, and it is latched again.
            self._wrong_signatures = _WRONG_SIGNATURES_TO_LATCH - 1
            self._reason = f"cleared by {latched.cleared_by}; no signature has verified yet"
            self._journal.metrics.breaker_latched.set(0)
            return True

    def _tell(self, to: str, detail: str) -> None:
        self._journal.metrics.breaker_open.set(0 if to == "closed" else 1)
        self._journal.metrics.breaker_transitions.labels(to).inc()
        self._journal.logger.warning("hsm.breaker", state=to, reason=detail)
        self._journal.incident("hsm.breaker", f"{to}: {detail}")
