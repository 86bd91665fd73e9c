"""What a rotation under load must show besides its signatures: the load it was under, and keys published ahead."""

import pytest

from loadtest.rotation.proof import Report, check_ahead, check_rate


@pytest.mark.parametrize(("reached", "problems"), [(200.0, 0), (190.0, 0), (189.0, 1), (0.0, 1)])
def test_much_less_load_than_was_asked_for_proves_nothing(reached: float, problems: int) -> None:
    """Of 200 a second; what was reached is said in any case."""
    report = Report()
    check_rate(report, reached, 200.0)
    assert len(report.problems) == problems
    assert report.figures["rate"] == f"{reached:.0f} transactions a second of 200 asked for"


def test_the_younger_version_is_published_in_good_time_by_each() -> None:
    """By as much as was asked for; too late, and never, are named with the process."""
    report = Report()
    published = {"in time": {"new": 99.0, "old": 0.0}, "late": {"new": 99.1, "old": 0.0}, "never": {"old": 0.0}}
    check_ahead(report, published, "new", 100.0, 1.0)
    assert report.problems == [f"{name}: not in the key set 1 s before the instant" for name in ("late", "never")]
    assert report.figures["in time: key set"] == "has the younger version since 1.0 s before the instant"
    assert report.figures["never: key set"] == "has the younger version never"
