"""Each caller gets as many transactions a second as it is granted, however they come."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.authority import Authority
from signer.errors import RateLimitedError
from signer.policy import CallerPolicy, Kills, Policy
from tests.unit.policies import BANK, KILL, QUEUE


class Clock:
    """Seconds that pass when a test says so."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def authority(clock: Clock, per_s: float = 10, burst: int = 5) -> Authority:
    """The bank is limited, the queue is not."""
    limited = CallerPolicy({}, transactions_per_s=per_s, burst=burst)
    return Authority(Policy({BANK: limited, QUEUE: CallerPolicy({})}), clock)


def test_after_the_burst_they_come_at_the_rate() -> None:
    """Five at once, then one each tenth of a second; who is too early is told when to come again."""
    clock = Clock()
    limited = authority(clock)
    for _ in range(5):
        limited.admit(BANK, 1)
    with pytest.raises(RateLimitedError) as refused:
        limited.admit(BANK, 1)
    assert refused.value.retry_after_s == pytest.approx(0.1)
    clock.now_s += 0.11
    limited.admit(BANK, 1)
    assert not limited.may_begin(BANK)


def test_a_large_batch_comes_in_whole_and_is_paid_for_afterwards() -> None:
    """A hundred at ten a second: the next one waits for ten seconds, less the burst."""
    clock = Clock()
    limited = authority(clock)
    limited.admit(BANK, 100)
    with pytest.raises(RateLimitedError) as refused:
        limited.admit(BANK, 1)
    assert refused.value.retry_after_s == pytest.approx(9.6)


def test_who_is_refused_pays_nothing() -> None:
    """Asking in vain does not postpone the next try."""
    clock = Clock()
    limited = authority(clock)
    limited.admit(BANK, 5)
    for _ in range(100):
        with pytest.raises(RateLimitedError):
            limited.admit(BANK, 1)
    clock.now_s += 0.11
    limited.admit(BANK, 1)


def test_one_callers_limit_is_no_other_callers() -> None:
    """The queue has none, and strangers are refused elsewhere."""
    limited = authority(Clock())
    limited.admit(BANK, 5)
    for caller in (QUEUE, "stranger"):
        for _ in range(100):
            limited.admit(caller, 1000)


def test_a_new_policy_gives_nobody_a_second_burst() -> None:
    """What was had stays had when the file changes."""
    limited = authority(Clock())
    limited.admit(BANK, 5)
    limited.replace(limited.current())
    with pytest.raises(RateLimitedError):
        limited.admit(BANK, 1)


def test_nothing_is_begun_for_who_is_halted() -> None:
    """A killed queue is not polled."""
    limited = authority(Clock())
    assert limited.may_begin(QUEUE)
    limited.replace(replace(limited.current(), kills=Kills(callers={QUEUE: KILL})))
    assert not limited.may_begin(QUEUE)


@given(
    st.floats(0.5, 1000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 40)), min_size=1, max_size=60),
)
def test_the_rate_holds_over_any_history(per_s: float, burst: int, calls: list[tuple[float, int]]) -> None:
    """Whatever came in never exceeds rate times time, and the burst, and what the last batch brought beyond."""
    clock = Clock()
    limited = authority(clock, per_s, burst)
    admitted, last = 0, 0
    for pause_s, transactions in calls:
        clock.now_s += pause_s
        try:
            limited.admit(BANK, transactions)
        except RateLimitedError:
            continue
        admitted, last = admitted + transactions, transactions
        assert admitted <= burst + per_s * clock.now_s + last - 1 + 1e-6
