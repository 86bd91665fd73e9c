"""The kill switch is a file that survives everything, and that two people may edit at once."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from signer.errors import ConfigurationError, InvalidInputError
from signer.policy import Kill
from signer.policy_kills import KillFile, Target
from tests.unit.policies import BANK, KILL

KEY = Target("key", "settlement")


def test_what_is_killed_is_read_by_whoever_comes_later(tmp_path: Path) -> None:
    """A key and a caller, each with who and why; the first word about one stands."""
    path = tmp_path / "policy.kills.json"
    assert KillFile(path).read().keys == {}
    KillFile(path).kill(KEY, KILL)
    KillFile(path).kill(KEY, replace(KILL, by="bob"))
    KillFile(path).kill(Target("caller", BANK), KILL)
    kills = KillFile(path).read()
    assert (kills.keys, kills.callers) == ({"settlement": KILL}, {BANK: KILL})


def test_who_revived_is_kept_for_the_record(tmp_path: Path) -> None:
    """The file stays, so that its absence stands out; reviving what lives says so."""
    file = KillFile(tmp_path / "policy.kills.json")
    file.kill(KEY, KILL)
    turn = replace(KILL, by="bob", reason="it was a test")
    assert file.revive(KEY, turn) == KILL
    kills = file.read()
    assert (kills.keys, kills.revived) == ({}, {"key settlement": turn})
    assert file.revive(KEY, turn) is None
    assert file.path.exists()


def test_two_who_turn_it_at_once_both_have_their_way(tmp_path: Path) -> None:
    """Twenty threads kill twenty keys; none is forgotten."""
    path = tmp_path / "policy.kills.json"
    aliases = [f"key-{number}" for number in range(20)]
    threads = [threading.Thread(target=KillFile(path).kill, args=(Target("key", alias), KILL)) for alias in aliases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(KillFile(path).read().keys) == set(aliases)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"schema": "signer-kills/1", "keys": {"a": {"by": "x"}}}', "\x00"]
)
def test_a_file_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path, content: str) -> None:
    """Nobody knows what it held, so neither reading nor editing goes on."""
    file = KillFile(tmp_path / "policy.kills.json")
    file.path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        file.read()
    with pytest.raises(ConfigurationError):
        file.kill(KEY, KILL)
    assert file.path.read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("target", "kill"),
    [
        (Target("key", "no alias"), KILL),
        (Target("caller", " "), KILL),
        (KEY, replace(KILL, by="")),
        (KEY, replace(KILL, reason=" ")),
        (KEY, replace(KILL, reason="a\nb")),
        (KEY, replace(KILL, reason="x" * 201)),
    ],
)
def test_it_takes_no_words_that_the_audit_log_could_not_show(tmp_path: Path, target: Target, kill: Kill) -> None:
    """A name, a person and a reason are checked before anything is written."""
    file = KillFile(tmp_path / "policy.kills.json")
    with pytest.raises(InvalidInputError):
        file.kill(target, kill)
    assert not file.path.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Whoever turns the switch must not believe that it turned."""
    with pytest.raises(ConfigurationError, match="cannot be written"):
        KillFile(tmp_path / "absent" / "policy.kills.json").kill(KEY, KILL)
