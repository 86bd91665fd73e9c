"""What a test tells a simulator to do: fail the next calls, or hold them up."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE_S = 20.0


class Faults:
    """What the next calls raise, in order; nothing once it is used up."""

    def __init__(self) -> None:
        self._errors: deque[Exception | None] = deque()

    def add(self, error: Exception, times: int, after: int = 0) -> None:
        """Let `times` calls fail with `error`, once `after` more have gone well."""
        self._errors.extend([None] * after + [error] * times)

    def strike(self) -> None:
        """Raise the next error, if there is one."""
        try:
            error = self._errors.popleft()
        except IndexError:
            return
        if error is not None:
            raise error


class Hold:
    """Stops every call until it is let go."""

    def __init__(self) -> None:
        self._waiting = 0
        self._changed = threading.Condition()
        self._open = False

    def wait_for(self, count: int) -> None:
        """Return once `count` calls have come here."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting >= count, _PATIENCE_S), f"no {count} calls came"

    @property
    def waiting(self) -> int:
        """How many calls have come here."""
        return self._waiting

    def let_go(self) -> None:
        """Let everyone pass from now on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def pass_by(self) -> None:
        """Wait here, as a call, until let go."""
        with self._changed:
            self._waiting += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open, _PATIENCE_S)


class Holdable:
    """Something whose calls a test can hold up."""

    def __init__(self) -> None:
        self._hold: Hold | None = None

    @contextmanager
    def held(self) -> Iterator[Hold]:
        """Let every call wait until the block is left, or `let_go` is called."""
        self._hold = hold = Hold()
        try:
            yield hold
        finally:
            self._hold = None
            hold.let_go()

    def _pass_by(self) -> None:
        hold = self._hold
        if hold is not None:
            hold.pass_by()
