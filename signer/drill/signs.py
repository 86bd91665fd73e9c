"""Has the service noticed? Its own metrics tell, or its end."""

from typing import Final

from signer.drill.stage import Stage

# Whatever goes wrong in the HSM, and is noticed, counts up one of these.
_COUNTERS: Final = (
    "signer_hsm_retries_total",
    "signer_hsm_throttles_total",
    "signer_hsm_mended_total",
    "signer_hsm_abandoned_calls_total",
    "signer_hsm_breaker_transitions_total",
    "signer_sessions_discarded_total",
    "signer_verification_failures_total",
)


class Signs:
    """Compares what the service tells with what it told when this was made."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._ends = len(stage.supervisor.ends)
        self._before = total(stage, *_COUNTERS)

    def died(self) -> bool:
        """Whether the process ended since."""
        return len(self._stage.supervisor.ends) > self._ends

    def seen(self) -> bool:
        """Whether the service showed any sign of trouble since."""
        return self.died() or total(self._stage, *_COUNTERS) > self._before


def total(stage: Stage, *names: str) -> float:
    """Add up metrics over all their labels; 0 while the service is down."""
    lines = (stage.get("/metrics") or "").splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names))
