"""Holds what came out against the audit logs: which version signed what, and when that was claimed."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from loadtest.rotation.load import CANARY, Seen
from loadtest.rotation.stage import ELDER, YOUNGER, Fleet
from signer.audit.verification import verify_directory
from signer.demo.stack import Stack
from signer.verification import verify_document
from signer.work import timestamp
from tests.canaries import found_in, written

_LEAST_OF_RATE: Final = 0.95


@dataclass
class Side:
    """What one process signed on one side of the instant."""

    count: int = 0
    nearest: str | None = None
    """The claim next to the instant."""


@dataclass
class Report:
    """What was proven, and what speaks against it."""

    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def prove(fleet: Fleet, seen: Seen, keys: Mapping[str, RSAPublicKey]) -> Report:
    """Check everything that was signed; `keys` by fingerprint."""
    report = Report()
    report.problems += seen.errors
    report.problems += [f"batch {batch_id} did not come out" for batch_id in sorted(seen.sent - seen.batches.keys())]
    labels = _check_signatures(seen, keys, report)
    claims = [claim for stack in fleet.stacks for claim in _check_log(stack, fleet, report)]
    named = dict(claims)
    report.problems += [
        f"{audit_id} went out as {label}, the audit log says {named.get(audit_id)}"
        for audit_id, label in labels.items()
        if named.get(audit_id) != label
    ]
    report.figures |= {"transactions": len(labels), "by_version": dict(Counter(labels.values()))}
    report.problems += leaks(fleet, seen)
    report.problems += _against_clients(seen, labels, fleet.instant.timestamp())
    if set(labels.values()) != {ELDER, YOUNGER}:
        report.problems.append("only one version signed")
    return report


def check_ahead(
    report: Report, published: Mapping[str, Mapping[str, float]], younger: str, instant_s: float, least_s: float
) -> None:
    """Tell how long before the instant each process published the younger version: what caches keys needs that time.

    `published` has by process and fingerprint the Unix time at which its key set first had that key.
    """
    for name, since_s in published.items():
        ahead_s = instant_s - since_s.get(younger, math.inf)
        since = f"since {ahead_s:.1f} s before the instant" if younger in since_s else "never"
        report.figures[f"{name}: key set"] = f"has the younger version {since}"
        if ahead_s < least_s:
            report.problems.append(f"{name}: not in the key set {least_s:g} s before the instant")


def check_rate(report: Report, reached: float, asked: float) -> None:
    """Tell what load there was, in transactions a second: under much less than was asked for nothing is proven."""
    report.figures["rate"] = f"{reached:.0f} transactions a second of {asked:g} asked for"
    if reached < _LEAST_OF_RATE * asked:
        report.problems.append(
            f"the load reached {reached / asked:.0%} of what was asked for: the figures do not count"
        )


def _against_clients(seen: Seen, labels: Mapping[str, str], instant_s: float) -> Iterator[str]:
    """Compare each version with the clients' own time: the audit logs tell what the services took for the moment."""
    for audit_id, (asked_s, answered_s) in seen.moments.items():
        late, early = asked_s >= instant_s, answered_s < instant_s
        if (late and labels[audit_id] != YOUNGER) or (early and labels[audit_id] != ELDER):
            yield f"{audit_id} was asked for {asked_s - instant_s:+.3f} s from the instant, and has {labels[audit_id]}"


def _check_signatures(seen: Seen, keys: Mapping[str, RSAPublicKey], report: Report) -> dict[str, str]:
    """Verify every signature; gives the label each went out under, by audit id."""
    documents = [json.dumps(item) for item in seen.signed]
    documents += [body for bodies in seen.batches.values() for body in bodies]
    labels: dict[str, str] = {}
    for document in documents:
        found = verify_document(document.encode(), keys)
        report.problems += [f"{item.transaction_id}: {item.problem}" for item in found if item.problem is not None]
        if len({item.key_label for item in found}) > 1:
            report.problems.append(f"the batch of {found[0].transaction_id} has two versions")
        labels |= {item.audit_id: item.key_label for item in found if item.audit_id and item.key_label}
    return labels


def _check_log(stack: Stack, fleet: Fleet, report: Report) -> Iterator[tuple[str, str]]:
    """Compare the version of each signature with the moment of its claim; gives audit ids and labels."""
    name, instant = stack.directory.name, timestamp(fleet.instant)
    verification = verify_directory(stack.audit_directory)
    if not verification.ok:
        report.problems.append(f"{name}: {verification.problem}")
    sides, resumed = {ELDER: Side(), YOUNGER: Side()}, 0
    for record in _records(stack):
        if record["operation"] == "key.rotated":
            report.figures[f"{name}: rotated at"] = record["time"]
        if record["operation"] != "sign" or record["outcome"] != "signed":
            continue
        label, claimed_at = record["key_label"], record.get("claimed_at")
        yield record["audit_id"], label
        if claimed_at is None:
            resumed += 1
            continue
        if label != (YOUNGER if claimed_at >= instant else ELDER):
            report.problems.append(f"{name}: {record['audit_id']} claimed {claimed_at}, signed with {label}")
        side = sides[label]
        side.count += 1
        nearest = max if label == ELDER else min
        side.nearest = claimed_at if side.nearest is None else nearest(side.nearest, claimed_at)
    for label, side in sides.items():
        report.figures[f"{name}: {label}"] = f"{side.count} signed, claim next to the instant {side.nearest}"
    report.figures[f"{name}: taken over from before"] = resumed
    if f"{name}: rotated at" not in report.figures:
        report.problems.append(f"{name}: no record of the rotation")


def leaks(fleet: Fleet, seen: Seen) -> Iterator[str]:
    """Search what the processes wrote and answered for the PIN and for what was signed; the rest was while they ran.

    A signed batch holds what was signed, as it should, but not the PIN.
    """
    pin = fleet.pin.decode()
    said = {
        f"{stack.directory.name}/{name}": content
        for stack in fleet.stacks
        for name, content in written(stack.directory).items()
    }
    batches = "\n".join(body for bodies in seen.batches.values() for body in bodies)
    found = found_in(said | {"answers": b"\n".join(seen.heard)}, {pin, CANARY})
    found |= found_in({"signed batches": batches.encode()}, {pin})
    yield from (f"{where}: a secret stands in it" for where in sorted({where for _, where in found}))


def _records(stack: Stack) -> Iterator[dict[str, Any]]:
    for file in sorted(stack.audit_directory.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
