"""A key that is found late is published at once, and signs only when every other task must have found it, too."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from signer.errors import HsmUnavailableError, KeyNotReadyError
from signer.ports import RawSignature, VersionState
from tests.hsm.conftest import GOOD_LABEL, HOUR, INSTANT, LEAD, SECOND_LABEL, Clock, Opened, spec
from tests.hsm.test_rotation import gauge, label_now, probe, sign, states, told


@pytest.fixture
def come(monkeypatch: pytest.MonkeyPatch) -> Callable[[Opened], None]:
    """Let the younger key be found, whose label leads to nothing at start."""

    def come(opened: Opened) -> None:
        version = opened.key_ring._versions.plan("settlement")[1]  # noqa: SLF001 - a key cannot be made at will
        monkeypatch.setattr(version, "spec", replace(version.spec, label=SECOND_LABEL))
        opened.key_ring.check_keys()

    return come


@pytest.mark.parametrize("found_at", [INSTANT - timedelta(seconds=1), INSTANT + HOUR], ids=["just before", "after"])
def test_a_key_that_comes_late_is_published_before_it_signs(
    open_planned: Callable[..., Opened], clock: Clock, come: Callable[[Opened], None], found_at: datetime
) -> None:
    """It is checked, published and proves itself at once; the elder goes on, and the alarm, until others know it."""
    opened = open_planned("absent")
    probe(opened)
    clock.now = found_at
    come(opened)
    assert label_now(opened) == GOOD_LABEL
    younger = opened.key_ring.versions("settlement")[1]
    assert (younger.key is not None, younger.published_at, younger.signs_from) == (True, found_at, found_at + LEAD)
    assert probe(opened) == ()
    clock.now = found_at + LEAD - timedelta(microseconds=1)
    opened.key_ring.take_incidents()
    assert label_now(opened) == GOOD_LABEL
    assert states(opened)[SECOND_LABEL] is VersionState.UPCOMING
    assert gauge(opened, "signer_key_rotation_overdue") == 1
    assert "was to sign from 2029-01-01T00:00:00.000000Z and waits" in opened.key_ring.warnings()[0]
    clock.now = found_at + LEAD
    assert label_now(opened) == SECOND_LABEL
    assert isinstance(sign(opened.key_ring.key("settlement"), opened), RawSignature)
    assert told(opened.key_ring.take_incidents()) == [("key.rotated", SECOND_LABEL)]
    assert gauge(opened, "signer_key_rotation_overdue") == 0


def test_a_key_that_comes_in_time_signs_at_its_moment(
    open_planned: Callable[..., Opened], clock: Clock, come: Callable[[Opened], None]
) -> None:
    """Found so long ahead that every task has found it, too, it waits for nothing else; all change together."""
    opened = open_planned("absent")
    probe(opened)
    clock.now = INSTANT - LEAD
    come(opened)
    probe(opened)
    clock.now = INSTANT
    assert label_now(opened) == SECOND_LABEL


@pytest.mark.parametrize("elder", ["drifted", "over"])
def test_a_key_that_comes_late_waits_though_its_elder_cannot_sign(
    open_planned: Callable[..., Opened],
    clock: Clock,
    come: Callable[[Opened], None],
    monkeypatch: pytest.MonkeyPatch,
    elder: str,
) -> None:
    """Nothing is signed meanwhile, which callers may try again; a signature that nobody can verify is out for good."""
    until = INSTANT + HOUR if elder == "over" else None
    opened = open_planned("absent", elder=replace(spec(), verify_until=until))
    probe(opened)
    old = opened.key_ring.key("settlement")
    clock.now = INSTANT + HOUR - timedelta(seconds=1)
    if elder == "drifted":
        version = opened.key_ring._versions.plan("settlement")[0]  # noqa: SLF001
        monkeypatch.setattr(version, "spec", replace(version.spec, label="wrong-extractable"))
    come(opened)
    probe(opened)
    clock.now += timedelta(seconds=2)
    if elder == "over":
        with pytest.raises(KeyNotReadyError):
            label_now(opened)
    else:
        assert isinstance(sign(old, opened), HsmUnavailableError)
        assert label_now(opened) == GOOD_LABEL
    clock.now += LEAD
    assert probe(opened) == ()
    assert label_now(opened) == SECOND_LABEL


def test_a_key_that_went_and_came_again_is_late_again(
    open_planned: Callable[..., Opened], clock: Clock, come: Callable[[Opened], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was out of the key set meanwhile."""
    opened = open_planned()
    probe(opened)
    version = opened.key_ring._versions.plan("settlement")[1]  # noqa: SLF001
    with monkeypatch.context() as patch:
        patch.setattr(version, "spec", replace(version.spec, label="absent"))
        opened.key_ring.check_keys()
    clock.now = INSTANT
    come(opened)
    probe(opened)
    assert label_now(opened) == GOOD_LABEL
    clock.now = INSTANT + LEAD
    assert label_now(opened) == SECOND_LABEL


@pytest.mark.parametrize(("ahead_s", "warned"), [(300, False), (299, True)])
def test_too_short_notice_is_a_warning(
    open_planned: Callable[..., Opened],
    clock: Clock,
    come: Callable[[Opened], None],
    ahead_s: int,
    warned: bool,  # noqa: FBT001 - a parameter
) -> None:
    """While key sets of before, which others may keep for 300 s, may lack a key that signs or is to sign."""
    opened = open_planned("absent")
    probe(opened)
    clock.now = found_at = INSTANT - timedelta(seconds=ahead_s)
    come(opened)
    probe(opened)
    assert any("may lack it until" in warning for warning in opened.key_ring.warnings()) is warned
    clock.now = found_at + timedelta(seconds=300)
    assert opened.key_ring.warnings() == ()
