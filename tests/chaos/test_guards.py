"""The checker finds it when a guard is taken out of the service: a run of the driver over a copy of the code each."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.run import Plan, run
from tests.chaos.site import ROOT


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of the service's code."""

    file: str
    old: str
    new: str

    def make(self, code: Path) -> None:
        """Change the copy in `code`; what is to be changed must stand there once."""
        file = code / "signer" / self.file
        text = file.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, self
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Guard:
    """What is taken out, and what comes of it."""

    out: Edit
    finds: str
    """The rule that the checker must find broken."""
    fault: Edit | None = None
    """What must go wrong besides, and does no harm as long as the guard is in its place."""
    dies_at: str | None = None
    """The failpoint at which the process is killed meanwhile."""


_FORWARD = """        with case.watch.stage("forward"):
            self._forwarder.forward(signed, case.lease.check)
"""
_DELETE = """        self._leases.delete(case.lease)
"""
_RESTS = """        failpoints.reach("deleted")
        self._metrics"""
GUARDS = {
    "one transaction, one digest": Guard(
        Edit(
            "ledger/record.py", "if (self.claim.digest, self.claim.algorithm) != (", "if self.claim is None and () != ("
        ),
        "wrong",
    ),
    "nothing without its audit record": Guard(
        Edit(
            "signing.py",
            "audit_ids = self._audit.append([work.audit_entry(origin, now) for work in part])",
            'audit_ids = ["000000000000-0000000000000001" for _ in part]',
        ),
        "unaudited",
    ),
    "no wrong signature": Guard(
        Edit(
            "work.py", "            and verifies(self.key.public_key,", "            or verifies(self.key.public_key,"
        ),
        "wrong",
        fault=Edit(
            "hsm/signature_maker.py",
            "value=value,",
            "value=value if int(ended_s * 1000) % 7 else bytes(reversed(value)),",
        ),
    ),
    "first forwarded, then deleted": Guard(
        Edit("sqs/worker.py", _FORWARD + _DELETE + _RESTS, _DELETE + _FORWARD + _RESTS), "lost", dies_at="forwarding"
    ),
    "bad batches are set aside": Guard(
        Edit(
            "sqs/worker.py",
            "        self._forwarder.quarantine(case.delivery, refused, history, case.lease.check)\n",
            "",
        ),
        "not_set_aside",
    ),
    "one deduplication id for one content": Guard(
        Edit("sqs/outbound.py", "= message.deduplication_id", "= __import__('uuid').uuid4().hex"),
        "doubled",
        dies_at="forwarded",
    ),
}


def play(directory: Path, edits: list[Edit], dies_at: str | None) -> set[str]:
    """Run the driver over the service with `edits`; gives the rules that were broken."""
    code = directory / "code"
    shutil.copytree(ROOT / "signer", code / "signer", ignore=shutil.ignore_patterns("__pycache__"))
    for edit in edits:
        edit.make(code)
    plan = Plan(
        "sqlite",
        1,
        fifo=True,
        batches=30,
        failpoints=(dies_at,) if dies_at else (),
        kills_each=3,
        longest_s=60,
        code=code,
    )
    return {violation.rule for violation in run(plan, directory / "run").violations}


def test_with_every_guard_in_its_place_nothing_is_found(tmp_path: Path) -> None:
    """What the others find is not the driver's own doing."""
    assert play(tmp_path, [], "forwarded") == set()


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_is_taken_out_is_missed(tmp_path: Path, name: str) -> None:
    """Without it, what must never happen happens, and the checker says so."""
    guard = GUARDS[name]
    edits = [guard.out] if guard.fault is None else [guard.out, guard.fault]
    assert guard.finds in play(tmp_path, edits, guard.dies_at)
