"""The housekeeping of the embedded ledger, in bites so small and so rare that commits hardly notice."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from signer.ledger.claims import Claims

NEW_NAMES: Final = 1024
"""So many stay in the small index: the pages of one commit, however large the other has grown."""
_BITE: Final = 16
"""Rows. Nearly each costs a page of the large index, and whoever claims meanwhile waits for them all."""
_PAUSE_S: Final = 0.0025
_QUIET_S: Final = 0.025
"""Names are folded once nobody has committed for so long: whoever claims in the middle of a burst waits for no bite."""
_MOST_NEW_NAMES: Final = 4 * NEW_NAMES
"""Beyond it they are folded between the commits of others."""
_IDLE_PAUSE_S: Final = 0.05
_FIRST_SWEEP_S: Final = 60.0
_SWEEP_INTERVAL_S: Final = 3600.0
_CHECKPOINT_INTERVAL_S: Final = 1.0


class Elapsed:
    """The time by which transactions grow old: from the latest that the file knew when it was opened, and no faster.

    A wall clock that is years ahead for a minute would have everything forgotten, and then signed over other content.
    `latest` is None for a file that knows nothing.
    """

    def __init__(self, latest: float | None, now: float, monotonic: Callable[[], float]) -> None:
        self.began = now if latest is None else min(now, latest)
        self._offset_s = self.began - monotonic()
        self._monotonic = monotonic

    def at(self, now: float) -> float:
        """Give it in Unix seconds: never beyond the wall clock's `now`, behind it after a time without transactions."""
        return min(now, self._offset_s + self._monotonic())


class Tidying:
    """Asks the ledger's thread for a bite now and then while there are names to fold, or transactions to forget.

    `ask` queues one; the thread then calls `begin` and, in a transaction, `bite`. What was committed is copied from the
    write-ahead log into the database over a connection of its own, so that no commit has to do it.
    """

    def __init__(
        self, path: Path, claims: Claims, retention_s: float, ask: Callable[[], None], elapsed: Elapsed
    ) -> None:
        self._path = path
        self._claims = claims
        self._retention_s = retention_s
        self._ask = ask
        self._elapsed = elapsed
        self._unfolded = claims.count_new_names()
        self._now = elapsed.began
        self._next_sweep_at = self._now + _FIRST_SWEEP_S
        self._asked = False
        self._committed = True
        self._quiet_at_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-tidying", daemon=True)
        self._thread.start()

    def begin(self, now: float, *, for_others: bool) -> None:
        """Learn that a commit begins, the time, and whether anybody but `ask` wants it."""
        self._asked = False
        self._committed = True
        self._now = self._elapsed.at(now)
        if for_others:
            self._quiet_at_s = time.monotonic() + _QUIET_S

    def bound(self, count: int) -> None:
        """Learn that so many transactions were bound; an estimate will do."""
        self._unfolded += count

    def bite(self) -> None:
        """Do a little, as part of the caller's transaction."""
        if self._unfolded > NEW_NAMES:
            folded = self._claims.fold(_BITE)
            self._unfolded = self._unfolded - folded if folded == _BITE else 0
        # The oldest come first: where none of them may be forgotten, no other may.
        elif self._now >= self._next_sweep_at and not self._claims.forget(self._now - self._retention_s, _BITE):
            self._next_sweep_at = self._now + _SWEEP_INTERVAL_S

    def close(self) -> None:
        """Stop asking."""
        self._stopping.set()
        self._thread.join()

    def _may_ask(self) -> bool:
        hurries = self._unfolded > _MOST_NEW_NAMES or self._now >= self._next_sweep_at
        return hurries or time.monotonic() >= self._quiet_at_s

    def _run(self) -> None:
        checkpoint_at_s = 0.0
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            due = False
            while not self._stopping.wait(_PAUSE_S if due else _IDLE_PAUSE_S):
                due = self._unfolded > NEW_NAMES or self._now >= self._next_sweep_at
                if due and not self._asked and self._may_ask():
                    self._asked = True
                    self._ask()
                if self._committed and time.monotonic() >= checkpoint_at_s:
                    self._committed = False
                    checkpoint_at_s = time.monotonic() + _CHECKPOINT_INTERVAL_S
                    # A disk in trouble shows in the commits.
                    with suppress(sqlite3.Error):
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
