"""Requests that come at the same time are signed together; none waits for company, none suffers from its company."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from starlette.responses import Response

from signer.api.exchange import Exchange
from signer.api.groups import Groups, Steps
from signer.deadlines import Deadline
from signer.errors import AuditUnavailableError, InvalidInputError, NotAuthorisedError, SignerError
from signer.metrics import Stopwatch
from signer.ports import Origin
from signer.signatures import DEFAULT_ALGORITHM
from signer.signing import Call
from signer.transactions import SigningRequest
from signer.work import Outcome, Refused, Signed
from tests.scripted import Hold
from tests.simulators import Simulation, simulate

PATIENCE_S = 30.0
A, B = "http:a", "http:b"


class Answer(Response):
    """Holds what became of a request."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Requests:
    """Sends requests to a core that takes one group at a time, from an event loop of its own."""

    def __init__(self) -> None:
        self.simulation: Simulation = simulate({"settlement": frozenset({A, B}), "payout": frozenset({B})})
        self.groups = Groups(self.simulation.service, requests=0, groups=1)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def send(
        self,
        number: int,
        caller: str = A,
        key: str = "settlement",
        within_s: float = PATIENCE_S,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> Future[Outcome]:
        """Begin one."""
        request = SigningRequest(key, f"T-{number}", bytes([number]) * 32, DEFAULT_ALGORITHM)
        origin = Origin("http", caller, "127.0.0.1", f"request-{number}")
        watch = Stopwatch(self.simulation.metrics, "http")
        exchange = Exchange(origin, None, Deadline.after(within_s), watch, is_gone, lambda: None)

        def steps(_body: bytes, exchange: Exchange) -> Steps:
            exchange.begin_work()
            return Answer((yield Call([request], exchange.origin, exchange.deadline, exchange.watch)))

        async def outcome() -> Outcome:
            answer = await self.groups.run(steps, b"", exchange)
            assert isinstance(answer, Answer)
            return answer.outcome

        return asyncio.run_coroutine_threadsafe(outcome(), self.loop)

    def until_waiting(self, count: int) -> None:
        """Wait until so many wait for their turn."""
        deadline = Deadline.after(PATIENCE_S)
        while len(self.groups._queue) < count:  # noqa: SLF001 - nobody else can tell
            deadline.check()

    def close(self) -> None:
        """End the loop and the threads."""
        self.groups.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def requests() -> Iterator[Requests]:
    """One core."""
    made = Requests()
    yield made
    made.close()


def fill(requests: Requests, hold: Hold) -> Future[Outcome]:
    """Send one that is being signed until it is let go."""
    first = requests.send(0)
    hold.wait_for(1)
    return first


def behind_others(requests: Requests, *others: tuple[int, str, str]) -> list[Outcome]:
    """Send some while the core is full; gives their outcomes."""
    with requests.simulation.key_ring.held() as hold:
        first = fill(requests, hold)
        futures = [requests.send(*other) for other in others]
        requests.until_waiting(len(others))
    assert isinstance(first.result(PATIENCE_S), Signed)
    return [future.result(PATIENCE_S) for future in futures]


def test_who_comes_meanwhile_goes_with_the_next_group(requests: Requests) -> None:
    """Ten that wait for others are one audit write; each gets the answer to its own request, under its own name."""
    outcomes = behind_others(requests, *((number, A if number % 2 else B, "settlement") for number in range(1, 11)))
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


def test_what_arrives_at_the_same_time_goes_together(requests: Requests) -> None:
    """Though there is room for each: the event loop reads all of it first."""

    async def at_once() -> list[Future[Outcome]]:
        return [requests.send(number) for number in range(5)]

    futures = asyncio.run_coroutine_threadsafe(at_once(), requests.loop).result(PATIENCE_S)
    assert all(isinstance(future.result(PATIENCE_S), Signed) for future in futures)
    assert requests.simulation.audit.sizes == [5]


def test_while_there_is_room_for_requests_nobody_waits(requests: Requests) -> None:
    """Eight are at work, each by itself, and the ninth waits."""
    requests.groups = Groups(requests.simulation.service, requests=8, groups=1)
    with requests.simulation.key_ring.held() as hold:
        futures = []
        for number in range(8):
            futures.append(requests.send(number))
            hold.wait_for(number + 1)
        futures.append(requests.send(8))
        requests.until_waiting(1)
    assert all(isinstance(future.result(PATIENCE_S), Signed) for future in futures)


def test_what_one_may_not_is_refused_to_it_alone(requests: Requests) -> None:
    """The policy is asked for each caller."""
    refused, signed = behind_others(requests, (1, A, "payout"), (2, B, "payout"))
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
        behind_others(requests, (1, A, "settlement"), (2, B, "settlement"))
    assert {A, B} <= set(asked[-2:])


def test_what_fails_for_all_is_told_to_each(requests: Requests) -> None:
    """And the next group goes on."""
    with requests.simulation.key_ring.held() as hold:
        first = fill(requests, hold)
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
        first = fill(requests, hold)
        futures = [requests.send(number) for number in (1, 2, 3)]
        requests.until_waiting(3)
        requests.simulation.key_ring.fail_next(RuntimeError("a defect"), times=2)
    # The one before fails by itself; then the group of three does, whose members go alone.
    with pytest.raises(RuntimeError):
        first.result(PATIENCE_S)
    assert all(isinstance(future.result(PATIENCE_S), Signed) for future in futures)
    assert isinstance(requests.send(4).result(PATIENCE_S), Signed)


def test_whose_deadline_passes_while_it_waits_is_told(requests: Requests) -> None:
    """At once; it is not signed, and those behind it are."""
    with requests.simulation.key_ring.held() as hold:
        first = fill(requests, hold)
        late, patient = requests.send(1, within_s=0.05), requests.send(2)
        with pytest.raises(SignerError) as told:
            late.result(PATIENCE_S)
        assert told.value.code == "deadline_exceeded"
        assert not first.done()
    assert isinstance(patient.result(PATIENCE_S), Signed)
    assert "T-1" not in {entry.transaction_id for entry in requests.simulation.audit.entries}


def test_who_has_gone_while_it_waited_is_not_signed(requests: Requests) -> None:
    """Nor whose server gave up waiting; and both take nobody's place."""
    with requests.simulation.key_ring.held() as hold:
        fill(requests, hold)
        gone, cancelled, patient = requests.send(1, is_gone=lambda: True), requests.send(2), requests.send(3)
        requests.until_waiting(3)
        cancelled.cancel()
    with pytest.raises(SignerError) as told:
        gone.result(PATIENCE_S)
    assert told.value.code == "client_gone"
    assert isinstance(patient.result(PATIENCE_S), Signed)
    assert requests.simulation.audit.sizes == [1, 1]


def test_who_cannot_be_asked_about_is_told_too(requests: Requests) -> None:
    """Whether a client is still accepted may meet a defect: its request has left the queue, and so have others."""

    def defect() -> bool:
        msg = "a defect"
        raise RuntimeError(msg)

    with requests.simulation.key_ring.held() as hold:
        fill(requests, hold)
        before, odd, behind = requests.send(1), requests.send(2, is_gone=defect), requests.send(3)
        requests.until_waiting(3)
    with pytest.raises(RuntimeError):
        odd.result(PATIENCE_S)
    assert all(isinstance(future.result(PATIENCE_S), Signed) for future in (before, behind))


def test_what_cannot_be_read_fails_alone(requests: Requests) -> None:
    """A request may end before it asks for a signature; what it may not is to ask for two."""

    def unreadable(body: bytes, exchange: Exchange) -> Steps:
        if not body:
            msg = "not JSON"
            raise InvalidInputError(msg)
        yield from greedy(body, exchange)
        raise AssertionError

    def greedy(_body: bytes, exchange: Exchange) -> Steps:
        request = SigningRequest("settlement", "T-9", bytes(32), DEFAULT_ALGORITHM)
        call = Call([request], exchange.origin, exchange.deadline, exchange.watch)
        yield call
        yield call
        raise AssertionError

    origin = Origin("http", A, "127.0.0.1", "request")
    watch = Stopwatch(requests.simulation.metrics, "http")
    exchange = Exchange(origin, None, Deadline.after(PATIENCE_S), watch, lambda: False, lambda: None)
    for work, error in ((unreadable, InvalidInputError), (greedy, RuntimeError)):
        with pytest.raises(error):
            asyncio.run_coroutine_threadsafe(requests.groups.run(work, b"", exchange), requests.loop).result(PATIENCE_S)
    assert isinstance(requests.send(1).result(PATIENCE_S), Signed)
