"""What is different between two policies, in words for the audit log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from signer.policy import CallerPolicy, Grant, Kills, Policy
from signer.ports import AuditEntry

_IN_ONE_RECORD: Final = 40


@dataclass(frozen=True, slots=True)
class Change:
    """One audit record's worth of difference."""

    operation: str
    """`policy.changed`, `policy.killed`, `policy.revived`."""
    detail: str
    key_alias: str | None = None

    def audit_entry(self, now: str, outcome: str) -> AuditEntry:
        """Give its audit record."""
        return AuditEntry(
            now, self.operation, outcome, entrance="service", key_alias=self.key_alias, detail=self.detail
        )


def changes(old: Policy, new: Policy) -> list[Change]:
    """Name what `new` does otherwise than `old`: one change for some 40 rules, one for each turn of the kill switch."""
    told = list(_of_callers(old.callers, new.callers))
    parts = [told[start : start + _IN_ONE_RECORD] for start in range(0, len(told), _IN_ONE_RECORD)]
    return [
        *_of_kills("key", old.kills, new.kills),
        *_of_kills("caller", old.kills, new.kills),
        *(Change("policy.changed", "; ".join(part)) for part in parts),
    ]


def _of_kills(kind: str, old: Kills, new: Kills) -> Iterator[Change]:
    were, are = (old.keys, new.keys) if kind == "key" else (old.callers, new.callers)
    turned = {subject.removeprefix(f"{kind} ") for subject in new.revived if subject.startswith(f"{kind} ")}
    for name in sorted(were.keys() | are.keys() | turned):
        alias, subject = name if kind == "key" else None, f"{kind} {name}"
        turn = new.revived.get(subject)
        if turn is not None and turn != old.revived.get(subject):
            # Whether or not anybody saw it killed.
            yield Change("policy.revived", f"{subject} revived {turn.told()}", alias)
        elif name in were and name not in are:
            # Without a new word about it, the file was edited by hand.
            yield Change("policy.revived", f"{subject} revived by whoever edited the file", alias)
        if name in are and are[name] != were.get(name):
            yield Change("policy.killed", f"{subject} {are[name].told()}", alias)


def _of_callers(old: Mapping[str, CallerPolicy], new: Mapping[str, CallerPolicy]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"caller {name} removed"
        elif name not in old:
            yield from _of_caller(f"caller {name} added", CallerPolicy({}), new[name]) or [f"caller {name} added"]
        else:
            yield from _of_caller(f"caller {name}", old[name], new[name])


def _of_caller(who: str, old: CallerPolicy, new: CallerPolicy) -> list[str]:
    told = [
        f"{who}: {what} {was} -> {now}"
        for what, was, now in (
            ("roles", _list(old.roles), _list(new.roles)),
            ("max_batch", old.max_batch, new.max_batch),
            ("transactions_per_second", old.transactions_per_s, new.transactions_per_s),
            ("burst", old.burst, new.burst),
        )
        if was != now
    ]
    for alias in sorted(old.keys.keys() | new.keys.keys()):
        was, now = old.keys.get(alias), new.keys.get(alias)
        if was != now:
            told.append(f"{who}: key {alias} {_grant(was)} -> {_grant(now)}")
    return told


def _grant(grant: Grant | None) -> str:
    if grant is None:
        return "denied"
    ids = "with" if grant.requires_transaction_id else "with or without"
    return f"({_list(grant.operations)}; {_list(grant.algorithms)}; {_list(grant.contents)}; {ids} transaction_id)"


def _list(names: frozenset[str]) -> str:
    return "+".join(sorted(names)) or "none"
