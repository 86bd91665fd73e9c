"""Lets calls to AWS go wrong, and processes be stopped for longer than their leases, at moments drawn at random."""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.chaos import faults
from tests.chaos.keeper import Keeper
from tests.chaos.proxy import Exchange, Fault, Proxy
from tests.chaos.site import LEASE_S, VISIBILITY_S

REFUSED: Final = "refused"
STOPPED: Final = "stopped"
_KINDS: Final = (REFUSED, *faults.KINDS)
_PATIENCE_S: Final = 4.0
_REFUSED_S: Final = 1.0
_PAUSE_S: Final = 2.0
_STOPPED_S: Final = max(LEASE_S, VISIBILITY_S) + 2.0
_LONG: Final = ("SendMessageBatch", "GetObject", "PutObject")
"""In which a heartbeat is waited for: nothing is in flight long enough by itself."""
_STOPPED_IN: Final = (*faults.LEDGER, "SendMessageBatch", "DeleteMessageBatch", "PutObject")


class Trouble:
    """Two threads, one for the network and one for what is stopped; `met` counts what has really happened."""

    def __init__(self, keepers: Sequence[Keeper], network_faults: int, stops: int, seed: int) -> None:
        self._keepers = keepers
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._kinds = [_KINDS[number % len(_KINDS)] for number in range(network_faults)]
        self._random.shuffle(self._kinds)
        self._stops = stops
        self._wanted = Counter([*self._kinds, *[STOPPED] * stops])
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._disturb, self._stop)]
        self.met: Counter[str] = Counter()

    @property
    def finished(self) -> bool:
        """Whether all that was to happen has happened: a thread that came to grief has not done its part."""
        return all(self.met[kind] >= number for kind, number in self._wanted.items())

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let no more happen."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _disturb(self) -> None:
        for kind in self._kinds:
            before = self.met[kind]
            while self.met[kind] == before and not self._closing.is_set():
                self._strike(kind, self._random.choice(self._keepers).service.proxy)
            self._closing.wait(self._random.uniform(0, _PAUSE_S))

    def _strike(self, kind: str, proxy: Proxy) -> None:
        if kind == REFUSED:
            with proxy.refusing():
                self._closing.wait(_REFUSED_S)
            self.met[kind] += 1
            return
        fault = self._counted(kind)
        operation = self._random.choice(faults.KINDS[kind].operations)
        if operation == faults.HEARTBEAT:
            operation, fault = self._random.choice(_LONG), faults.held_for_heartbeat(proxy, fault)
        strike = proxy.next(operation, fault)
        if not strike.wait(_PATIENCE_S):
            proxy.withdraw(strike)

    def _counted(self, kind: str) -> Fault:
        async def count(exchange: Exchange) -> None:
            self.met[kind] += 1
            await faults.KINDS[kind].fault(exchange)

        return count

    def _stop(self) -> None:
        while self.met[STOPPED] < self._stops and not self._closing.is_set():
            keeper = self._random.choice(self._keepers)
            fault = faults.stopped(keeper.freeze, done_first=self._random.choice((True, False)))
            strike = keeper.service.proxy.next(self._random.choice(_STOPPED_IN), fault)
            if not strike.wait(_PATIENCE_S) and keeper.service.proxy.withdraw(strike):
                continue
            if keeper.freeze_for(_STOPPED_S):
                self.met[STOPPED] += 1
