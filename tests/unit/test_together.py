"""Requests that come at the same time are signed together; none waits for company, none suffers from its company."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, NotAuthorisedError
from signer.metrics import Stopwatch
from signer.ports import Origin
from signer.signatures import DEFAULT_ALGORITHM
from signer.signing import Call
from signer.together import Together
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused, Signed
from tests.simulators import Simulation, simulate

PATIENCE_S = 30.0
A, B = "http:a", "http:b"


class Requests:
    """Sends requests, each from a thread of its own, to a core that has one group under way at most."""

    def __init__(self) -> None:
        self.simulation: Simulation = simulate({"settlement": frozenset({A, B}), "payout": frozenset({B})})
        self.together = Together(self.simulation.service, groups=1)
        self.threads = ThreadPoolExecutor(32)

    def send(
        self, number: int, caller: str = A, key: str = "settlement", within_s: float = PATIENCE_S
    ) -> Future[Outcome]:
        """Begin one."""
        request = SigningRequest(key, f"T-{number}", bytes([number]) * 32, DEFAULT_ALGORITHM)
        origin = Origin("http", caller, "127.0.0.1", f"request-{number}")
        call = Call(request, origin, Deadline.after(within_s), Stopwatch(self.simulation.metrics, "http"))
        return self.threads.submit(self.together.sign, call)

    def until_waiting(self, count: int) -> None:
        """Wait until so many wait for their turn."""
        deadline = Deadline.after(PATIENCE_S)
        while len(self.together._queue) < count:  # noqa: SLF001 - nobody else can tell
            deadline.check()


@pytest.fixture
def requests() -> Iterator[Requests]:
    """One core."""
    made = Requests()
    with made.threads:
        yield made


def behind_another(requests: Requests, *others: tuple[int, str, str]) -> list[Outcome]:
    """Send one, and while it is being signed the others; gives the outcomes of these."""
    with requests.simulation.key_ring.held() as hold:
        first = requests.send(0)
        hold.wait_for(1)
        futures = [requests.send(*other) for other in others]
        requests.until_waiting(len(others))
    assert isinstance(first.result(PATIENCE_S), Signed)
    return [future.result(PATIENCE_S) for future in futures]


def test_who_comes_meanwhile_goes_with_the_next_group(requests: Requests) -> None:
    """Ten that wait for one are one audit write; each gets the answer to its own request, under its own name."""
    outcomes = behind_another(requests, *((number, A if number % 2 else B, "settlement") for number in range(1, 11)))
    assert requests.simulation.audit.sizes == [1, 10]
    entries = {entry.transaction_id: entry for entry in requests.simulation.audit.entries}
    for number, outcome in enumerate(outcomes, 1):
        assert isinstance(outcome, Signed)
        entry = entries[f"T-{number}"]
        assert outcome.signature.audit_id
        assert entry.digest == "sha256:" + (bytes([number]) * 32).hex()
        assert (entry.caller, entry.message_id) == (A if number % 2 else B, f"request-{number}")


def test_nobody_waits_for_company(requests: Requests) -> None:
    """One after another, each is a group of its own."""
    for number in range(3):
        assert isinstance(requests.send(number).result(PATIENCE_S), Signed)
    assert requests.simulation.audit.sizes == [1, 1, 1]


def test_what_one_may_not_is_refused_to_it_alone(requests: Requests) -> None:
    """The policy is asked for each caller."""
    refused, signed = behind_another(requests, (1, A, "payout"), (2, B, "payout"))
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, NotAuthorisedError)
    assert isinstance(signed, Signed)


def test_a_killed_caller_is_refused_alone_though_it_was_let_in(requests: Requests) -> None:
    """Right before C_Sign everyone is asked about by its own name."""
    asked: list[str] = []
    simulation = requests.simulation
    policy = simulation.service.policy()
    real = type(policy).refuse_killed

    def noted(self: object, caller: str, alias: str) -> None:
        asked.append(caller)
        real(self, caller, alias)  # type: ignore[arg-type] # it is the policy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(policy), "refuse_killed", noted)
        behind_another(requests, (1, A, "settlement"), (2, B, "settlement"))
    assert {A, B} <= set(asked[-2:])


def test_what_fails_for_all_is_told_to_each(requests: Requests) -> None:
    """And the next group goes on."""
    with requests.simulation.key_ring.held() as hold:
        first = requests.send(0)
        hold.wait_for(1)
        futures = [requests.send(number) for number in (1, 2)]
        requests.until_waiting(2)
        requests.simulation.audit.fail_next(AuditUnavailableError("disk full"), after=1)
    assert isinstance(first.result(PATIENCE_S), Signed)
    outcomes = [future.result(PATIENCE_S) for future in futures]
    assert [outcome.error.code for outcome in outcomes if isinstance(outcome, Refused)] == ["audit_unavailable"] * 2
    assert isinstance(requests.send(3).result(PATIENCE_S), Signed)


def test_a_defect_fails_only_who_meets_it_alone(requests: Requests) -> None:
    """What nobody foresaw may lie in one request: the others of its group are signed, each by itself."""
    with requests.simulation.key_ring.held() as hold:
        first = requests.send(0)
        hold.wait_for(1)
        futures = [requests.send(number) for number in (1, 2, 3)]
        requests.until_waiting(3)
        requests.simulation.key_ring.fail_next(RuntimeError("a defect"), times=2)
    # The first fails by itself; then the group of three does, whose members go alone.
    with pytest.raises(RuntimeError):
        first.result(PATIENCE_S)
    assert all(isinstance(future.result(PATIENCE_S), Signed) for future in futures)
    assert requests.together._free == 1  # noqa: SLF001 - they took nobody's place


def test_whose_deadline_passes_while_it_waits_is_told(requests: Requests) -> None:
    """Its place is free, and those behind it are signed."""
    with requests.simulation.key_ring.held() as hold:
        first = requests.send(0)
        hold.wait_for(1)
        late, patient = requests.send(1, within_s=0.05), requests.send(2)
        outcome = late.result(PATIENCE_S)
    assert isinstance(outcome, Refused)
    assert outcome.error.code == "deadline_exceeded"
    assert isinstance(first.result(PATIENCE_S), Signed)
    assert isinstance(patient.result(PATIENCE_S), Signed)
    assert "T-1" not in {entry.transaction_id for entry in requests.simulation.audit.entries}
