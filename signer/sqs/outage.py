"""The inbound queue does not answer: said once for each kind of outage, and waited out with growing pauses."""

import random
from typing import Final

from signer.errors import SignerError
from signer.logs import Logger, frames_of

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0
_RANDOM: Final = random.SystemRandom()


class Outage:
    """What the receiver knows of its queue's trouble."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._failures = 0
        self.reason: str | None = None
        """None while the queue answers."""

    def begin(self, error: Exception) -> float:
        """Note one more failure; gives the pause to make, in seconds, with jitter so that a fleet does not march."""
        reason = error.message if isinstance(error, SignerError) else type(error).__name__
        if reason != self.reason:
            details = {} if isinstance(error, SignerError) else {"traceback": frames_of(error)}
            self._logger.warning("queue.unavailable", reason=reason, **details)
        self.reason = reason
        longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        self._failures += 1
        return _RANDOM.uniform(longest_s / 2, longest_s)

    def end(self) -> None:
        """Note that the queue answers."""
        if self.reason is not None:
            self._logger.info("queue.available", failures=self._failures)
        self._failures, self.reason = 0, None
