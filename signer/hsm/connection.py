"""The way to the HSM: one module after another, logged in, and mended by whoever finds it broken, once for all."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signer.deadlines import Deadline
from signer.errors import HsmUnavailableError, SignerError
from signer.hsm.bounded import ends_in_time
from signer.hsm.errors import CONNECTION_LOST, Fate, HsmFault
from signer.hsm.hung_calls import HungCalls, nobody_waits
from signer.hsm.journal import Journal
from signer.hsm.module import Module

_QUIET_TIMEOUT_S: Final = 10.0
_CLOSING_TIMEOUT_S: Final = 1.0
_DEVICE_FAULTS_TO_REBUILD: Final = 2
_ATTEMPTS_AT_START: Final = 5
_REBUILD_PAUSES_S: Final = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Lent:
    """The module for one call, and the generation that what is opened in it belongs to."""

    module: Module
    generation: int


class Connection:
    """Lends the module for single calls, and mends it.

    `generation` counts logins and modules: what was opened in an earlier one is dead. Mending is single-flight: who
    comes with a generation that is over finds the work done.
    """

    def __init__(
        self, path: Path, token_label: str, read_pin: Callable[[], str], hung_calls: HungCalls, journal: Journal
    ) -> None:
        """Load the module and log in; raises `SignerError`."""
        self._path = path
        self._token_label = token_label
        self._read_pin = read_pin
        self.hung_calls = hung_calls
        self._metrics = journal.metrics
        self._logger = journal.logger
        self.generation = 0
        self._mending = threading.Lock()
        self._calls = threading.Condition()
        self._calls_in_flight = 0
        self._shut = False
        self._refused: SignerError | None = None
        self._device_faults = 0
        self._rebuilds_in_vain = 0
        self._next_rebuild_at_s = 0.0
        self._module: Module | None = None
        try:
            self._open(_ATTEMPTS_AT_START, nobody_waits)
        except HsmFault as fault:
            raise fault.error from None

    @contextmanager
    def lend(self, deadline: Deadline) -> Iterator[Lent]:
        """Lend the module for the block; it is not finalised meanwhile. Raises `HsmFault`, `HsmUnavailableError`."""
        with self._calls:
            if self._shut and not self._calls.wait_for(lambda: not self._shut, deadline.remaining_s()):
                raise HsmFault(CONNECTION_LOST, "waiting for the HSM connection to be rebuilt")
            module = self._module
            if module is None:
                raise HsmFault(CONNECTION_LOST, "using the HSM")
            module.check_process()
            lent = Lent(module, self.generation)
            self._calls_in_flight += 1
        try:
            yield lent
        finally:
            with self._calls:
                self._calls_in_flight -= 1
                if not self._calls_in_flight:
                    self._calls.notify_all()

    def worked(self) -> None:
        """Note that the module does what it should."""
        self._device_faults = self._rebuilds_in_vain = 0

    def check_process(self) -> None:
        """Raise `HsmUnavailableError` in a child that was forked: it has neither our threads nor the HSM's sessions."""
        module = self._module
        if module is not None:
            module.check_process()

    def mend(self, fate: Fate, generation: int, deadline: Deadline, on_hang: Callable[[], None] = nobody_waits) -> None:
        """Do what `fate`, found in `generation`, asks for, unless somebody did already.

        Raises `SignerError` if the HSM cannot be used now, and `HsmFault` if it is throttled. After a refused login it
        raises that refusal ever after, without asking the HSM again. `on_hang` is called if the HSM does not answer.
        """
        if not self._mending.acquire(timeout=deadline.remaining_s()):
            msg = "the HSM connection was being mended until the deadline"
            raise HsmUnavailableError(msg)
        try:
            # Looked at under the lock: who waited while the login was refused must not try the same PIN again.
            if self._refused is not None:
                raise self._refused
            if self.generation != generation:
                return
            module = self._module
            if fate is Fate.REBUILD:
                # One session may fail for reasons of its own; a rebuild would take all others down with it.
                self._device_faults += 1
            if module is None or self._device_faults >= _DEVICE_FAULTS_TO_REBUILD:
                self._rebuild(on_hang)
            elif fate is Fate.LOG_IN:
                self._log_in_or_rebuild(module, on_hang)
        finally:
            self._mending.release()

    def close(self) -> None:
        """Finalise, unless a call hangs in the module: under one that comes back later, that would be a crash."""
        self._refused = self._refused or HsmUnavailableError("the HSM connection is closed")
        ends_in_time(self._finalize_for_good, 2 * _CLOSING_TIMEOUT_S)

    def _finalize_for_good(self) -> None:
        # Whoever mends it at this moment ends first; nobody does so after us.
        with self._mending:
            self._finalize()

    def _finalize(self) -> None:
        with self._calls:
            module, self._module = self._module, None
            quiet = self._calls.wait_for(lambda: self._calls_in_flight == 0, _CLOSING_TIMEOUT_S)
        if module is not None and quiet:
            module.close()

    def _open(self, attempts: int, on_hang: Callable[[], None]) -> None:
        with self.hung_calls.mending(on_hang):
            module = Module(self._path, self._token_label, attempts)
        try:
            self._log_in(module, on_hang)
        except BaseException:
            with self.hung_calls.mending(on_hang):
                module.close()
            raise
        self._module = module

    def _log_in_or_rebuild(self, module: Module, on_hang: Callable[[], None]) -> None:
        try:
            if self._log_in(module, on_hang):
                self.generation += 1
        except HsmFault as fault:
            if fault.throttled:
                raise
            self._rebuild(on_hang)

    def _log_in(self, module: Module, on_hang: Callable[[], None]) -> bool:
        """Tell whether the login was gone; raises the refusal, and `HsmFault` for anything less final."""
        pin = self._read_pin()
        try:
            with self.hung_calls.mending(on_hang):
                was_gone = module.log_in(pin)
        except HsmFault as fault:
            if fault.rule.fate is not Fate.FATAL:
                raise
            self._refused = fault.error
            raise self._refused from None
        if was_gone:
            self._metrics.mended.labels("login").inc()
            self._logger.info("hsm.logged_in", token_serial=module.token_serial)
        return was_gone

    def _rebuild(self, on_hang: Callable[[], None]) -> None:
        if time.monotonic() < self._next_rebuild_at_s:
            msg = "the HSM connection was rebuilt in vain a moment ago"
            raise HsmUnavailableError(msg)
        # In vain until something works again, whether the module could be loaded or not.
        pause_s = _REBUILD_PAUSES_S[min(self._rebuilds_in_vain, len(_REBUILD_PAUSES_S) - 1)]
        self._rebuilds_in_vain += 1
        self._shut_out_calls()
        try:
            with self.hung_calls.mending(on_hang):
                self._finalize()
            self._open(1, on_hang)
        except (SignerError, HsmFault) as error:
            self._logger.warning("hsm.rebuild_failed", reason=str(error), next_in_s=pause_s)
            msg = f"the HSM connection is lost and cannot be rebuilt now: {error}"
            raise self._refused or HsmUnavailableError(msg) from None
        finally:
            self._next_rebuild_at_s = time.monotonic() + pause_s
            self._let_calls_in()
        self._device_faults = 0
        self.generation += 1
        self._metrics.mended.labels("rebuild").inc()
        self._logger.warning("hsm.rebuilt", generation=self.generation)

    def _shut_out_calls(self) -> None:
        self.hung_calls.let_rebuild()
        with self._calls:
            self._shut = True
            quiet = self._calls.wait_for(lambda: self._calls_in_flight == 0, _QUIET_TIMEOUT_S)
        if not quiet:
            self._let_calls_in()
            msg = "the HSM connection cannot be rebuilt: calls into the module do not end"
            raise HsmUnavailableError(msg)

    def _let_calls_in(self) -> None:
        with self._calls:
            self._shut = False
            self._calls.notify_all()
