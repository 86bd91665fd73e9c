"""The policy in force is what the files say; a bad file changes nothing, and every difference is on record."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from signer import logs
from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, ConfigurationError, NotAuthorisedError
from signer.metrics import Metrics
from signer.policy import Policy
from signer.policy_kills import KillFile, Target
from signer.policy_watch import PolicySource, PolicyWatch
from signer.ports import AuditEntry
from signer.wiring import utc_now
from tests.simulators import SimulatedAuditLog
from tests.unit.policies import BANK, KILL, POLICY, asked, replace_file

KEY = Target("key", "settlement")
BOB = replace(KILL, by="bob@bank.example", reason="it was a test")


class SlowAuditLog(SimulatedAuditLog):
    """Takes its time over each append."""

    takes_s = 0.0
    failed = 0
    """How many calls did."""

    def append(self, entries: Sequence[AuditEntry]) -> list[str]:
        """Append them then."""
        time.sleep(self.takes_s)
        try:
            return super().append(entries)
        except AuditUnavailableError:
            self.failed += 1
            raise


class Watched:
    """A watch over a policy file in `directory`, which a test looks through by hand."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "policy.toml"
        self.kills = KillFile(directory / "policy.kills.json")
        self.audit = SlowAuditLog()
        self.metrics = Metrics(CollectorRegistry())
        if not self.file.exists():
            replace_file(self.file, POLICY)
        source = PolicySource(self.file, self.kills.path, Policy({}))
        self.watch = PolicyWatch(source, self.audit, self.metrics.policy, logs.get("test"), utc_now, lambda: 0.0)

    @property
    def policy(self) -> Policy:
        return self.watch.authority.current()

    def look(self) -> None:
        """Look at the files, and record what was found."""
        self.watch.look()
        self.watch.record()

    def allows(self) -> bool:
        """Whether the bank may sign with the settlement key."""
        return self.policy.denial(BANK, asked()) is None

    def operations(self) -> list[str]:
        return [entry.operation for entry in self.audit.entries]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_change_takes_effect_and_is_recorded_as_a_difference(watched: Watched) -> None:
    """One record names the callers and keys that changed; looking again finds nothing new."""
    before = watched.policy
    replace_file(watched.file, POLICY.replace("max_batch = 3", "max_batch = 5").replace("keys.payout", "keys.fees"))
    watched.look()
    watched.look()
    assert watched.policy.max_batch(BANK) == 5
    assert before.max_batch(BANK) == 3
    (entry,) = watched.audit.entries
    assert (entry.operation, entry.outcome, entry.entrance) == ("policy.changed", "done", "service")
    assert entry.detail is not None
    assert f"caller {BANK}: max_batch 3 -> 5" in entry.detail
    assert "key fees denied -> (sign+verify; RSASSA_PSS_SHA_256; digest; with transaction_id)" in entry.detail
    assert "key payout (sign+verify; RSASSA_PSS_SHA_256; digest; with transaction_id) -> denied" in entry.detail


@pytest.mark.parametrize("bad", ["nonsense", POLICY.replace("max_batch = 3", "max_batch = -1"), ""])
def test_a_bad_file_changes_nothing_and_is_told_once(watched: Watched, bad: str) -> None:
    """What was in force stays; log, counter, one audit record and a warning say so until the file is good again."""
    replace_file(watched.file, bad)
    for _ in range(5):
        watched.look()
    assert watched.allows()
    assert watched.operations() == ["policy.refused"]
    assert "what was in force stays so" in watched.watch.warnings()[0]
    registry = watched.metrics.registry
    assert registry.get_sample_value("signer_policy_reloads_total", {"result": "refused"}) == 1
    assert registry.get_sample_value("signer_policy_stale") == 1
    replace_file(watched.file, POLICY)
    watched.look()
    assert watched.watch.warnings() == ()
    assert registry.get_sample_value("signer_policy_stale") == 0
    assert watched.operations() == ["policy.refused"]


def test_a_file_that_is_gone_changes_nothing(watched: Watched) -> None:
    """A shared mount that was lost grants and revives nobody."""
    watched.kills.kill(KEY, KILL)
    watched.look()
    watched.file.unlink()
    watched.kills.path.unlink()
    watched.look()
    assert watched.policy.denial(BANK, asked()) is not None
    assert len(watched.watch.warnings()) == 3
    assert watched.operations() == ["policy.killed", "policy.refused", "policy.refused"]


def test_a_kill_is_recorded_with_who_and_why_and_so_is_its_end(watched: Watched) -> None:
    """Two records; between them nobody may sign with the key."""
    watched.kills.kill(KEY, KILL)
    watched.look()
    assert not watched.allows()
    assert watched.watch.warnings() == ("key settlement is killed",)
    watched.kills.revive(KEY, KILL)
    watched.look()
    assert watched.allows()
    killed, revived = watched.audit.entries
    assert (killed.operation, killed.key_alias) == ("policy.killed", "settlement")
    assert killed.detail == f"key settlement {KILL.told()}"
    assert (revived.operation, revived.key_alias) == ("policy.revived", "settlement")


def test_a_kill_does_not_wait_for_the_audit_log_but_a_right_does(watched: Watched) -> None:
    """While the log takes nothing the kill is in force and a grant is not; later both are on record."""
    watched.kills.kill(KEY, KILL)
    replace_file(watched.file, POLICY.replace("max_batch = 3", "max_batch = 5"))
    watched.audit.fail_next(AuditUnavailableError("disk full"), times=2)
    watched.look()
    watched.look()
    assert (watched.allows(), watched.policy.max_batch(BANK)) == (False, 3)
    watched.look()
    assert (watched.allows(), watched.policy.max_batch(BANK)) == (False, 5)
    assert watched.operations() == ["policy.killed", "policy.changed"]


def test_the_second_kill_does_not_wait_until_the_first_is_on_record(watched: Watched) -> None:
    """While an append takes 5 s every kill is in force within one, and a revival is not; then all is on record."""
    watched.watch.start()
    watched.audit.takes_s = 5.0
    watched.kills.kill(KEY, KILL)
    until(lambda: not watched.allows(), 1.0)
    watched.kills.kill(Target("caller", BANK), KILL)
    until(lambda: BANK in watched.policy.kills.callers, 1.0)
    watched.kills.revive(KEY, BOB)
    time.sleep(1.0)  # to see that nothing happens takes time
    assert set(watched.policy.kills.keys) == {"settlement"}
    assert watched.metrics.registry.get_sample_value("signer_policy_unrecorded") == 3
    assert watched.watch.warnings()[-1] == "3 records of the policy wait for the audit log"
    watched.audit.takes_s = 0.0
    until(lambda: not watched.policy.kills.keys, 20.0)
    watched.watch.close()
    told = [(entry.operation, entry.key_alias) for entry in watched.audit.entries[-3:]]
    assert told == [("policy.killed", "settlement"), ("policy.killed", None), ("policy.revived", "settlement")]
    assert watched.watch.warnings() == (f"caller {BANK} is killed",)


def test_what_is_not_on_record_at_the_end_is_tried_once_more(watched: Watched) -> None:
    """A kill right before the service stops, over a log that fails once."""
    watched.watch.start()
    watched.audit.fail_next(AuditUnavailableError("disk full"))
    watched.kills.kill(KEY, KILL)
    until(lambda: not watched.allows(), 1.0)
    until(lambda: watched.audit.failed == 1, 20.0)
    watched.watch.close()
    assert watched.operations()[-1] == "policy.killed"


def test_refusals_that_were_too_many_are_told_of(watched: Watched) -> None:
    """When their minute is over, or the service ends."""
    bounds = watched.watch.authority.refusals
    assert [bounds.admit("stranger", NotAuthorisedError("no")) for _ in range(65)] == [True] * 60 + [False] * 5
    watched.watch.start()
    watched.watch.close()
    told = watched.audit.entries[-1]
    assert (told.operation, told.caller, told.error_code) == ("authorise", "stranger", "not_authorised")
    assert told.detail == "5 more refusals with this code, not recorded one by one"
    assert watched.metrics.registry.get_sample_value("signer_policy_refusals_total", {"code": "not_authorised"}) == 65


def until(condition: Callable[[], bool], within_s: float) -> None:
    """Wait for what another thread is about to do, and no longer than it may take."""
    deadline = Deadline.after(within_s)
    while not condition():
        deadline.check()
        time.sleep(0.01)


def test_nothing_is_revived_before_that_is_on_record(watched: Watched) -> None:
    """A key comes back after its record is durable."""
    watched.kills.kill(KEY, KILL)
    watched.look()
    watched.kills.revive(KEY, KILL)
    watched.audit.fail_next(AuditUnavailableError("disk full"))
    watched.look()
    assert not watched.allows()
    watched.look()
    assert watched.allows()


def test_a_kill_survives_a_restart(tmp_path: Path) -> None:
    """The next process begins with it, and puts what is in force on record before it opens."""
    Watched(tmp_path).kills.kill(KEY, KILL)
    again = Watched(tmp_path)
    assert not again.allows()
    again.watch.start()
    again.watch.close()
    assert again.operations() == ["policy.loaded", "policy.loaded"]
    assert again.audit.entries[0].detail == f"key settlement {KILL.told()}"


def test_a_turn_that_no_task_saw_is_on_record_all_the_same(tmp_path: Path) -> None:
    """Killed and revived between two looks, or revived while no task ran: the record says who let it go on."""
    watched = Watched(tmp_path)
    watched.kills.kill(KEY, KILL)
    watched.kills.revive(KEY, BOB)
    watched.look()
    watched.look()
    (revived,) = watched.audit.entries
    told = ("settlement", f"key settlement revived {BOB.told()}")
    assert (revived.operation, revived.key_alias, revived.detail) == ("policy.revived", *told)
    again = Watched(tmp_path)
    again.watch.start()
    again.watch.close()
    assert (again.operations()[0], again.audit.entries[0].key_alias, again.audit.entries[0].detail) == (
        "policy.loaded",
        *told,
    )


def test_a_kill_that_is_edited_away_is_not_laid_to_who_revived_an_earlier_one(watched: Watched) -> None:
    """Revived once by bob, killed again, then taken out of the file by hand: that was not bob."""
    watched.kills.kill(KEY, KILL)
    watched.look()
    watched.kills.revive(KEY, BOB)
    watched.look()
    watched.kills.kill(KEY, KILL)
    watched.look()
    document = json.loads(watched.kills.path.read_text(encoding="utf-8"))
    replace_file(watched.kills.path, json.dumps(document | {"keys": {}}))
    watched.look()
    assert watched.operations() == ["policy.killed", "policy.revived"] * 2
    assert [("bob" in (entry.detail or "")) for entry in watched.audit.entries] == [False, True, False, False]


def test_every_difference_of_a_large_change_is_on_record(watched: Watched) -> None:
    """What stands last is no less a right than what stands first."""
    callers = [f"""[[callers]]\nname = "dns:{number:03}.bank.example"\n""" for number in range(90)]
    replace_file(watched.file, POLICY + "".join(callers))
    watched.look()
    told = "; ".join(entry.detail or "" for entry in watched.audit.entries)
    assert [f"caller dns:{number:03}.bank.example added" for number in range(90)] == told.split("; ")
    assert set(watched.operations()) == {"policy.changed"}
    assert len(watched.audit.entries) < 5


@pytest.mark.parametrize("name", ["policy.toml", "policy.kills.json"])
def test_it_does_not_start_over_a_bad_file(tmp_path: Path, name: str) -> None:
    """Without knowing who may do what, or what is killed, nothing must be signed."""
    (tmp_path / name).write_text("nonsense", encoding="utf-8")
    with pytest.raises(ConfigurationError):
        Watched(tmp_path)
