"""The guards against what must never happen: how to take each one out of a copy of the source, and what shows it then.

What is taken out is text, and must stand there exactly once: a guard that was moved is noticed.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.site import ROOT

_FORWARD_THEN_DELETE: Final = """
            self._forwarder.forward(signed, case.lease.check)
        case.is_downstream = True
        self._leases.delete(case.lease)
        failpoints.reach("deleted")
"""
_DELETE_THEN_FORWARD: Final = """
            self._leases.delete(case.lease)
        failpoints.reach("deleted")
        self._forwarder.forward(signed, case.lease.check)
"""
_SET_ASIDE_THEN_DELETE: Final = """
        self._forwarder.quarantine(case.delivery, refused, history, case.lease.check)
        self._leases.delete(case.lease)
        failpoints.reach("deleted")
"""
_DELETE_THEN_SET_ASIDE: Final = """
        self._leases.delete(case.lease)
        failpoints.reach("deleted")
        self._forwarder.quarantine(case.delivery, refused, history, case.lease.check)
"""


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard: where it stands, and what is to happen for its absence to do harm."""

    name: str
    file: str
    text: str
    without: str
    """What stands there instead once it is taken out."""
    sends: tuple[str, ...]
    """Kinds of batches."""
    finds: str
    """The rule that is violated without it."""
    killed_at: str = ""
    """The failpoint at which the service dies, to be started again."""
    wrong_signature: bool = False
    """Whether the HSM gives one."""

    def taken_out(self, directory: Path) -> Path:
        """Give a source tree without it, in `directory`; raises `ValueError` if the guard does not stand there."""
        shutil.copytree(ROOT / "signer", directory / "signer", ignore=shutil.ignore_patterns("__pycache__"))
        place = directory / "signer" / self.file
        source = place.read_text(encoding="utf-8")
        if source.count(self.text) != 1:
            msg = f"{self.name}: does not stand exactly once in {self.file}"
            raise ValueError(msg)
        place.write_text(source.replace(self.text, self.without), encoding="utf-8")
        return directory


GUARDS: Final = (
    Guard(
        "forward before delete", "sqs/worker.py", _FORWARD_THEN_DELETE, _DELETE_THEN_FORWARD,
        ("good",), "lost", killed_at="deleted",
    ),
    Guard(
        "set aside before delete", "sqs/worker.py", _SET_ASIDE_THEN_DELETE, _DELETE_THEN_SET_ASIDE,
        ("bad",), "not_set_aside", killed_at="deleted",
    ),
    Guard(
        "delete", "sqs/lease.py", "partial(self._inbound.delete, lease.receipt_handle, lease.check)", "lease.check",
        ("good",), "left_behind",
    ),
    Guard(
        "deduplication by content", "sqs/downstream.py",
        "batch.group_id, batch.content_sha256)", "batch.group_id, __import__('uuid').uuid4().hex)",
        ("good",), "doubled", killed_at="forwarded",
    ),
    Guard(
        "signatures are kept", "signing.py",
        "self._ledger.complete([(claimed, signature) for _, claimed, signature in part])", "[None for _ in part]",
        ("good",), "copies_differ", killed_at="forwarded",
    ),
    Guard(
        "one digest a claim", "ledger/record.py",
        "if (self.claim.digest, self.claim.algorithm) != (wanted.claim.digest, wanted.claim.algorithm):", "if False:",
        ("rival",), "wrong",
    ),
    Guard(
        "claims by transaction", "work.py",
        "Claim(request.key_alias, request.transaction_id,",
        "Claim(request.key_alias, request.transaction_id + request.digest.hex(),",
        ("rival",), "two_digests",
    ),
    Guard(
        "policy", "signing.py", "policy.authorise(origin.caller, work.request)", "pass",
        ("bad",) * 11, "uninvited",
    ),
    Guard(
        "verification", "hsm/signature_maker.py",
        "sound = verifies(task.key.public_key, algorithm, task.digest, value)", "sound = True",
        ("good",), "wrong", wrong_signature=True,
    ),
    Guard(
        "audit before release", "signing.py",
        "self._audit.append([record.entry for record in part])", '["none" for _ in part]',
        ("good",), "unaudited",
    ),
    Guard(
        "torn records are set aside", "audit/recovery.py",
        "file.truncate(end.size)", "file.truncate(end.size + len(torn))",
        ("good",), "chain_broken", killed_at="audit_writing",
    ),
)  # fmt: skip

FENCING: Final = Guard(
    "fencing", "ledger/items.py",
    '"holder_token = :token AND attribute_not_exists(signature) AND {TTL} > :now"',
    '"(holder_token = :token OR attribute_exists(holder_token)) AND {TTL} > :now"',
    ("good",), "not_kept",
)  # fmt: skip
"""Of the ledger that a fleet shares."""
