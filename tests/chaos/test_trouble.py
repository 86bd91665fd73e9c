"""What is to go wrong in a run: counted, not presumed."""

import pytest

from tests.chaos.trouble import Trouble


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("network_faults", "stops"), [(1, 0), (0, 1)])
def test_a_run_whose_trouble_breaks_down_has_not_finished(network_faults: int, stops: int) -> None:
    """With no process to disturb its threads end at once, and nothing has gone wrong: that is no proof of anything."""
    trouble = Trouble([], network_faults, stops, seed=1)
    trouble.start()
    trouble.close()
    assert not trouble.met
    assert not trouble.finished


def test_where_nothing_is_to_go_wrong_all_has() -> None:
    """As in a run that only kills."""
    assert Trouble([], 0, 0, seed=1).finished
