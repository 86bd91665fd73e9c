"""A large batch goes through the ledger and the audit log in slices, and keeps its promises between two of them."""

from collections.abc import Callable

import pytest

from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, HsmUnavailableError, LedgerUnavailableError
from signer.metrics import Stopwatch
from tests.simulators import Simulation
from tests.unit.test_signing import ORIGIN, codes, request, sign, simulation

__all__ = ["simulation"]

SLICE = 500
LARGE = [request(number) for number in range(1200)]
SLICES = [500, 500, 200]


def test_no_commit_holds_more_than_a_slice(simulation: Simulation) -> None:
    """Whoever comes while a large batch is signed waits for a slice of it at each step, never for all of it."""
    assert set(codes(sign(simulation, LARGE, whole=True))) == {"signed"}
    assert simulation.ledger.sizes == {"claim": SLICES, "complete": SLICES, "release": [], "withdraw": []}
    assert simulation.audit.sizes == SLICES


def test_what_is_undone_is_undone_in_slices_too(simulation: Simulation) -> None:
    """Claims are given back, and withdrawn, no more than a slice at a time; none is left."""
    simulation.key_ring.fail_next(HsmUnavailableError("connection lost"))
    assert set(codes(sign(simulation, LARGE, whole=True))) == {"hsm_unavailable"}
    assert simulation.ledger.sizes["release"] == SLICES
    other = [request(number) for number in range(2000, 3200)]
    assert "transaction_conflict" in codes(sign(simulation, [*other, request(0, "changed")], whole=True))
    assert simulation.ledger.sizes["withdraw"] == SLICES
    assert len(simulation.ledger.bound) == len(LARGE)


def test_a_claim_that_fails_half_way_leaves_nothing_bound(simulation: Simulation) -> None:
    """When the ledger fails after the first slice the HSM is not asked, and no digest stays bound."""
    simulation.ledger.fail_next_claim(LedgerUnavailableError("disk full"), after=1)
    assert set(codes(sign(simulation, LARGE, whole=True))) == {"ledger_unavailable", "batch_abandoned"}
    assert simulation.key_ring.signed == []
    assert simulation.ledger.bound == {}
    # The slice after it was not even tried: each try may take as long as a time-out.
    assert simulation.ledger.sizes["claim"] == [SLICE]


def fail_audit(simulation: Simulation) -> None:
    simulation.audit.fail_next(AuditUnavailableError("disk full"), after=1)


def fail_complete(simulation: Simulation) -> None:
    simulation.ledger.fail_next_complete(LedgerUnavailableError("disk full"), after=1)


@pytest.mark.parametrize(("fail", "code"), [(fail_audit, "audit_unavailable"), (fail_complete, "ledger_unavailable")])
def test_what_was_kept_before_a_failure_is_replayed_after_it(
    simulation: Simulation, fail: Callable[[Simulation], None], code: str
) -> None:
    """When audit or ledger fail after the first slice, only that slice is released; the next try signs the others."""
    fail(simulation)
    assert codes(sign(simulation, LARGE, whole=True)) == ["signed"] * SLICE + [code] * (len(LARGE) - SLICE)
    assert codes(sign(simulation, LARGE, whole=True)) == ["replayed"] * SLICE + ["signed"] * (len(LARGE) - SLICE)


def test_beyond_the_deadline_nothing_is_claimed(simulation: Simulation) -> None:
    """A ledger that is slow with each slice keeps a large batch no longer than that; nothing is bound for nothing."""
    watch = Stopwatch(simulation.metrics, ORIGIN.entrance)
    outcomes = simulation.service.sign_many(LARGE, ORIGIN, Deadline.after(0), watch, all_or_nothing=True)
    assert set(codes(outcomes)) == {"deadline_exceeded"}
    assert simulation.ledger.sizes["claim"] == []
    assert simulation.ledger.bound == {}
