"""How long a batch stays hidden that could not be signed or sent now: one table, by what stood in the way."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 10
_RANDOM: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Pause:
    """The first pause, as a multiple of `sqs.retry_after_s`, and the longest one, in seconds."""

    first: int
    longest_s: int


_OUTAGE: Final = Pause(2, 900)
_SUSPECT: Final = Pause(6, 900)

PAUSES: Final[Mapping[str, Pause]] = {
    # There is much to do: it passes by itself, and soon.
    "hsm_busy": Pause(1, 60),
    "overloaded": Pause(1, 60),
    "deadline_exceeded": Pause(1, 60),
    # Somebody else is at it: their signature can be had when they are done, the claim when their lease has run out.
    "transaction_in_progress": Pause(1, 120),
    "claim_lost": Pause(1, 120),
    "batch_abandoned": Pause(1, 120),
    # It has had its share; the consumer waits before it begins another, so few come here.
    "rate_limited": Pause(1, 60),
    # A person stopped it, and will say when it goes on: no haste, and few receives spent.
    "key_killed": Pause(60, 900),
    "caller_killed": Pause(60, 900),
    # Something is away.
    "hsm_unavailable": _OUTAGE,
    "key_not_ready": _OUTAGE,
    "ledger_unavailable": _OUTAGE,
    "audit_unavailable": _OUTAGE,
    "queue_unavailable": _OUTAGE,
    "payload_unavailable": _OUTAGE,
    "unavailable": _OUTAGE,
    # Something is wrong that should not be: no haste.
    "signature_invalid": _SUSPECT,
    "internal_error": _SUSPECT,
}
"""By our error code; any other counts as `internal_error`."""


def pause_s(code: str, receive_count: int, retry_after_s: int) -> int:
    """Give the pause before the next delivery, in whole seconds: twice as long after each, up to the longest.

    A random half is taken off, so that what failed together does not come back together.
    """
    pause = PAUSES.get(code, _SUSPECT)
    doubled = pause.first * retry_after_s << min(receive_count - 1, _MOST_DOUBLINGS)
    longest = min(doubled, pause.longest_s)
    return round(_RANDOM.uniform(longest / 2, longest))
