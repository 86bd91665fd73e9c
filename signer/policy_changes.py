"""What is different between two policies, in words for the audit log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from signer.policy import CallerPolicy, Grant, Kill, Policy
from signer.ports import AuditEntry

_MOST_TOLD: Final = 40


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
    """Name what `new` does otherwise than `old`: one change for all the rules, one for each turn of the kill switch."""
    found = [
        *_of_kills("key", old.kills.keys, new.kills.keys, new.kills.revived),
        *_of_kills("caller", old.kills.callers, new.kills.callers, new.kills.revived),
    ]
    told = list(_of_callers(old.callers, new.callers))
    if told:
        more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        found.append(Change("policy.changed", "; ".join(told[:_MOST_TOLD] + more)))
    return found


def _of_kills(
    kind: str, old: Mapping[str, Kill], new: Mapping[str, Kill], revived: Mapping[str, Kill]
) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        alias = name if kind == "key" else None
        subject = f"{kind} {name}"
        if name in new:
            yield Change("policy.killed", f"{subject} {new[name].told()}", alias)
        else:
            # Without a word about it, the file was edited by hand.
            turn = revived.get(subject)
            yield Change("policy.revived", f"{subject} {turn.told() if turn else 'by whoever edited the file'}", alias)


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
