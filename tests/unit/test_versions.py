"""How long a key set may be kept: so that no key signs that it lacks."""

from datetime import UTC, datetime, timedelta

import pytest

from signer.ports import KeyVersion, VersionState
from signer.versions import keepable_s
from tests.simulators import SimulatedKeyRing

NOW = datetime(2029, 1, 1, tzinfo=UTC)


def upcoming(ahead_s: float, *, known: bool = False) -> list[KeyVersion]:
    """A key that signs, and its next version, planned so far ahead."""
    ring = SimulatedKeyRing("settlement")
    ring.add_version("settlement", "settlement-key-2029", NOW + timedelta(seconds=ahead_s)).known = known
    if ahead_s <= 0:
        ring._versions["settlement"][1].not_ready = "absent"  # noqa: SLF001 - it would sign
    return list(ring.versions("settlement", NOW))


@pytest.mark.parametrize(
    ("ahead_s", "keepable"),
    [(86400, 300), (300, 300), (299.5, 299), (100, 100), (15, 15), (14, 15), (0, 15), (-3600, 15)],
)
def test_it_is_not_kept_beyond_the_moment_of_a_key_that_it_lacks(ahead_s: float, keepable: int) -> None:
    """Nor, once that is near or over, for longer than until the next look at the HSM."""
    assert keepable_s(upcoming(ahead_s), NOW, 15) == keepable


@pytest.mark.parametrize("ahead_s", [86400, 100, -10])
def test_one_that_lacks_nothing_is_kept(ahead_s: float) -> None:
    """Whatever is planned."""
    assert keepable_s(upcoming(ahead_s, known=True), NOW, 15) == 300


def test_a_retired_key_that_is_gone_shortens_nothing() -> None:
    """It signs no more."""
    (elder, _) = upcoming(100, known=True)
    gone = KeyVersion("settlement", "gone", VersionState.RETIRED, None, None)
    assert keepable_s([gone, elder], NOW, 15) == 300


def test_looks_that_are_far_apart_do_not_lengthen_it() -> None:
    """300 s is the most, and less than a second is none."""
    assert keepable_s(upcoming(0), NOW, 3600) == 300
    assert keepable_s(upcoming(0), NOW, 0.5) == 0
