"""How long a batch that failed stays away, and what is remembered of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import signer.sqs.errors
from signer.errors import SignerError
from signer.sqs.backoff import PAUSES, pause_s
from signer.sqs.messages import Delivery
from signer.sqs.patience import Failure, Patience

NOW = datetime(2028, 3, 8, 12, tzinfo=UTC)
# How they end is decided elsewhere: by the new owner of the message, and by what stood in the way.
NEVER_PAUSED = {signer.sqs.errors.LeaseLostError.code, signer.sqs.errors.BatchDeferredError.code}


def kinds(error: type[SignerError]) -> Iterator[type[SignerError]]:
    """Give every kind of error there is."""
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


def test_every_failure_that_may_pass_has_its_pause() -> None:
    """No retryable error of ours is left to the default, and no code stands there that nobody raises."""
    ours = [kind for kind in kinds(SignerError) if kind.__module__ in ("signer.errors", "signer.sqs.errors")]
    retryable = {kind.code for kind in ours if kind.retryable}
    assert retryable - NEVER_PAUSED <= PAUSES.keys() <= {kind.code for kind in ours}


@pytest.mark.parametrize("code", [*PAUSES, "a code of tomorrow"])
def test_the_pause_doubles_up_to_its_longest_and_never_exceeds_it(code: str) -> None:
    """Each lies between a half and the whole of what the table says, at any receive count."""
    pause = PAUSES.get(code, PAUSES["internal_error"])
    for receive_count in (1, 2, 3, 5, 10, 100, 1000):
        whole = min(pause.first * 5 * 2 ** (receive_count - 1), pause.longest_s)
        pauses = {pause_s(code, receive_count, 5) for _ in range(300)}
        assert whole / 2 - 1 <= min(pauses) <= max(pauses) <= whole
        # What failed together does not come back together.
        assert len(pauses) > 1
    assert pause_s(code, 1000, 900) <= pause.longest_s <= 900


def test_the_documented_table_is_the_one_in_force() -> None:
    """docs/queue.md names each code with its first pause at the default of five seconds, and its longest."""
    text = (Path(__file__).parents[2] / "docs" / "queue.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    documented = {
        code.strip("`"): (int(first), int(longest)) for codes, first, longest, *_ in rows for code in codes.split(", ")
    }
    assert documented == {code: (pause.first * 5, pause.longest_s) for code, pause in PAUSES.items()}


def delivery(message_id: str = "message-1", receive_count: int = 1) -> Delivery:
    return Delivery(message_id, "handle", "", {}, {"ApproximateReceiveCount": str(receive_count)}, 0.0, 0.0)


def test_what_is_remembered_is_bounded_and_forgotten_in_the_end() -> None:
    """The last twenty failures of a message, the last thousand messages, and nothing of one that is done with."""
    patience = Patience(lambda: None, 5, lambda: NOW)
    for count in range(1, 31):
        patience.note(delivery(receive_count=count), "hsm_unavailable")
    assert patience.history(delivery())[0] == Failure(11, "hsm_unavailable", NOW)
    assert len(patience.history(delivery())) == 20
    for number in range(999):
        patience.note(delivery(f"other-{number}"), "hsm_unavailable")
    assert len(patience.history(delivery())) == 20
    patience.note(delivery("one too many"), "hsm_unavailable")
    assert patience.history(delivery()) == ()
    patience.forget(delivery("one too many"))
    assert patience.history(delivery("one too many")) == ()


def test_the_last_try_comes_before_the_reserve() -> None:
    """From the limit on a delivery is the last; beyond it the last has been. Without a limit neither ever is."""
    limits: list[int] = []
    patience = Patience(lambda: limits[0] if limits else None, 5)
    deliveries = [delivery(receive_count=count) for count in (3, 4, 5)]
    assert [patience.is_last_try(each) for each in deliveries] == [False, False, False]
    limits.append(4)
    assert [patience.is_last_try(each) for each in deliveries] == [False, True, True]
    assert [patience.is_spent(each) for each in deliveries] == [False, False, True]
    assert timedelta(seconds=patience.pause_s(deliveries[0], "hsm_busy")) <= timedelta(seconds=20)
