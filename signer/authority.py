"""The policy of this moment, which may change at any time, and how much each caller has had."""

import threading
from collections.abc import Callable

from signer.errors import RateLimitedError
from signer.policy import CallerPolicy, Policy
from signer.refusal_bounds import RefusalBounds


class Authority:
    """Holds the policy in force and one token bucket for each caller; safe to use from every thread."""

    def __init__(self, policy: Policy, clock_s: Callable[[], float], refusals: RefusalBounds | None = None) -> None:
        """`clock_s` gives monotonic seconds; without `refusals` the bounds on their records are the default ones."""
        self.refusals = RefusalBounds(clock_s) if refusals is None else refusals
        self._policy = policy
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def current(self) -> Policy:
        """Give the policy in force, whole: whoever decides about a batch asks once."""
        return self._policy

    def replace(self, policy: Policy) -> None:
        """Put another policy in force, in one step; who exceeded a limit does not gain by it."""
        self._policy = policy

    def admit(self, caller: str, transactions: int) -> None:
        """Count `transactions` towards the caller's limit; raises `RateLimitedError`, and counts nothing then.

        A batch is let in whole as soon as one transaction would be, and the next has to wait for what it took beyond:
        the average holds, and no batch is too large to come in ever.
        """
        if transactions == 0:
            return
        wait_s = self._take(caller, transactions)
        if wait_s > 0:
            msg = "this caller has had as many transactions as it is granted for now"
            raise RateLimitedError(msg, wait_s)

    def may_begin(self, caller: str) -> bool:
        """Tell whether something may be begun for `caller`: it is not halted, and not beyond its limit."""
        return not self._policy.is_halted(caller) and self._take(caller, 0) <= 0

    def _take(self, caller: str, transactions: int) -> float:
        """Give the seconds to wait, or take the tokens if there are none."""
        known = self._policy.callers.get(caller)
        if known is None or known.transactions_per_s is None:
            return 0.0
        with self._lock:
            # Only callers that the policy names have a bucket: their number is bounded.
            bucket = self._buckets.setdefault(caller, _Bucket(float(known.burst), self._clock_s()))
            return bucket.take(transactions, known, known.transactions_per_s, self._clock_s())


class _Bucket:
    """Tokens that come at a rate, up to `burst`; below zero after a large batch."""

    def __init__(self, tokens: float, now_s: float) -> None:
        self._tokens = tokens
        self._filled_at_s = now_s

    def take(self, wanted: int, limits: CallerPolicy, per_s: float, now_s: float) -> float:
        self._tokens = min(float(limits.burst), self._tokens + (now_s - self._filled_at_s) * per_s)
        self._filled_at_s = now_s
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / per_s
        self._tokens -= wanted
        return 0.0
