"""How many bodies may be on their way at once: of one caller, and of all together."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Gauge

from signer.errors import OverloadedError

_CALLERS_TOGETHER: Final = 4


class UnfinishedBodies:
    """Counts bodies that did not come with their head; everything happens on the event loop.

    A caller that sends slowly takes nothing from the others until `_CALLERS_TOGETHER` do so, and memory is bounded:
    the bodies counted here, and those of the requests that were admitted.
    """

    def __init__(self, of_one: int, gauge: Gauge) -> None:
        self._of_one, self._of_all = of_one, of_one * _CALLERS_TOGETHER
        self._by_caller: Counter[str] = Counter()
        self._gauge = gauge

    @contextmanager
    def one_more(self, caller: str) -> Iterator[None]:
        """Count one for the block; raises `OverloadedError` at once if there are too many."""
        if self._by_caller[caller] >= self._of_one:
            msg = f"{self._of_one} bodies of this caller are on their way already"
            raise OverloadedError(msg)
        if self._by_caller.total() >= self._of_all:
            msg = f"{self._of_all} bodies are on their way already"
            raise OverloadedError(msg)
        self._count(caller, 1)
        try:
            yield
        finally:
            self._count(caller, -1)

    def _count(self, caller: str, change: int) -> None:
        self._by_caller[caller] += change
        if not self._by_caller[caller]:
            del self._by_caller[caller]
        self._gauge.set(self._by_caller.total())
