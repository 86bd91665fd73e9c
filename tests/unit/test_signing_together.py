"""Calls that have nothing to do with each other are signed together, and none has a part in what another meets."""

from collections.abc import Sequence
from dataclasses import replace

from signer.deadlines import Deadline
from signer.metrics import Stopwatch
from signer.ports import Origin
from signer.signing import Call
from signer.transactions import SigningRequest
from tests.simulators import Simulation
from tests.unit.test_signing import CALLER, ORIGIN, codes, request, simulation

__all__ = ["simulation"]

OTHER = Origin("sqs", CALLER, "settlement-inbound", "message-2", "BATCH-2")
STRANGER = Origin("sqs", "queue:nobody-knows", "nobody-knows", "message-3", "BATCH-3")


def call(simulation: Simulation, requests: Sequence[SigningRequest], origin: Origin, *, whole: bool = True) -> Call:
    """A batch."""
    return Call(requests, origin, Deadline.after(60), Stopwatch(simulation.metrics, "sqs"), whole)


def together(simulation: Simulation, *batches: tuple[Sequence[SigningRequest], Origin]) -> list[list[str]]:
    """Sign batches, each all or nothing; gives the codes of each."""
    outcomes = simulation.service.sign_together([call(simulation, *batch) for batch in batches])
    return [codes(each) for each in outcomes]


def test_one_commit_and_one_call_of_the_hsm_serve_several_batches(simulation: Simulation) -> None:
    """Each gets its own outcomes, in order, and its own records."""
    first, second = [request(1), request(2)], [request(3)]
    outcomes = simulation.service.sign_together(
        [call(simulation, first, ORIGIN), call(simulation, [], OTHER), call(simulation, second, OTHER)]
    )
    assert [codes(each) for each in outcomes] == [["signed"] * 2, [], ["signed"]]
    assert (simulation.ledger.sizes["claim"], simulation.ledger.sizes["complete"]) == ([3], [3])
    assert [(entry.transaction_id, entry.batch_id) for entry in simulation.audit.of("sign")] == [
        ("TXN-1", "BATCH-1"),
        ("TXN-2", "BATCH-1"),
        ("TXN-3", "BATCH-2"),
    ]


def test_a_batch_that_is_refused_leaves_the_others_alone(simulation: Simulation) -> None:
    """Nothing of it is signed or stays bound, whether policy or ledger refused one; everything of theirs is."""
    together(simulation, ([request(7)], ORIGIN))
    signed = together(
        simulation,
        ([request(1), request(2)], ORIGIN),
        ([request(3), request(4, key="payout")], OTHER),
        ([request(5), request(7, "other content")], OTHER),
        ([request(6)], STRANGER),
    )
    assert signed == [
        ["signed", "signed"],
        ["batch_abandoned", "not_authorised"],
        ["batch_abandoned", "transaction_conflict"],
        ["not_authorised"],
    ]
    assert {name for _, name in simulation.ledger.bound} == {"TXN-1", "TXN-2", "TXN-7"}
    assert len(simulation.key_ring.signed) == 3


def test_single_requests_beside_a_batch_stand_for_themselves(simulation: Simulation) -> None:
    """Only the calls that ask for it are all or nothing."""
    calls = [
        call(simulation, [request(1), request(2, key="payout")], ORIGIN, whole=False),
        call(simulation, [request(3), request(4, key="payout")], OTHER),
    ]
    assert [codes(each) for each in simulation.service.sign_together(calls)] == [
        ["signed", "not_authorised"],
        ["batch_abandoned", "not_authorised"],
    ]


def test_a_batch_that_comes_twice_at_once_is_signed_once(simulation: Simulation) -> None:
    """The second is told that the first is at it, and has its signatures when it comes again."""
    batch = [request(1), request(2)]
    assert together(simulation, (batch, ORIGIN), (batch, OTHER)) == [
        ["signed", "signed"],
        ["transaction_in_progress", "transaction_in_progress"],
    ]
    assert together(simulation, (batch, OTHER)) == [["replayed", "replayed"]]
    assert len(simulation.key_ring.signed) == 2


def test_a_call_whose_deadline_has_passed_fails_alone(simulation: Simulation) -> None:
    """The others are signed, by the first deadline that has not passed; nothing of the late one is claimed."""
    late, other = call(simulation, [request(1)], ORIGIN), call(simulation, [request(2)], OTHER)
    outcomes = simulation.service.sign_together([replace(late, deadline=Deadline.after(0)), other])
    assert [codes(each) for each in outcomes] == [["deadline_exceeded"], ["signed"]]
    assert {name for _, name in simulation.ledger.bound} == {"TXN-2"}


def test_the_times_of_what_is_done_together_count_for_each(simulation: Simulation) -> None:
    """One batch's log line says where its time went, whoever else was there."""
    calls = [call(simulation, [request(number)], ORIGIN) for number in (1, 2)]
    simulation.service.sign_together(calls)
    stages = {"ledger", "audit", "verify"}
    assert all(stages <= each.watch.seconds.keys() for each in calls), [each.watch.seconds for each in calls]
