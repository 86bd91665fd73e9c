"""Verifies what a load gets, in a process of its own: the CPU it takes must not make the generator late."""

import multiprocessing
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from loadtest.proof import NotProvenError, Proof

_CHUNK: Final = 50
_MOST_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it all."""

    verified: int
    """Signatures, each verified with the public key over the digest of what was sent."""
    compared: bool
    """Whether audit log and ledger were there to be compared with."""
    problems: Sequence[str]
    made: int | None = None
    """Signatures that the HSM made meanwhile, where somebody counted them."""

    def beside(self, answered: int, made: int | None) -> "Verdict":
        """Give it with what does not fit together: whatever was answered must be verified, and made by the HSM.

        There may be more of either: what was answered too late was verified too, and what was refused may be signed.
        """
        problems = list(self.problems)
        if self.verified < answered:
            problems.append(f"{answered} transactions were answered, {self.verified} of them with a good signature")
        if made is not None and made < self.verified:
            problems.append(f"{self.verified} signatures came out, {made} were made by the HSM")
        return Verdict(self.verified, self.compared, problems, made)


class Verifier:
    """Feeds a `Proof` in another process."""

    def __init__(self, public_key_pem: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._far, far = context.Pipe()
        self._process = context.Process(target=_verify, args=(far, public_key_pem), daemon=True)
        self._process.start()
        far.close()
        self._events: list[tuple[Any, ...]] = []

    @property
    def pid(self) -> int | None:
        """Of the process that verifies."""
        return self._process.pid

    def send(self, transaction_id: str, digest: bytes) -> None:
        """Note what goes in."""
        self._note("send", transaction_id, digest)

    def receive(self, asked: str, answered: object, signature: object) -> None:
        """Have verified what came out, under the id that it says it is for."""
        self._note("receive", asked, answered, signature)

    def give_up(self, transaction_id: str) -> None:
        """Note that no signature came, and that there may be one all the same."""
        self._note("give_up", transaction_id)

    def complain(self, problem: str) -> None:
        """Note that something came that proves the service wrong, and is no signature."""
        self._note("complain", problem)

    def result(self, audits: Sequence[Path], ledgers: Sequence[Path]) -> Verdict:
        """Wait until all is verified and compared."""
        self._flush()
        try:
            self._far.send((list(audits), list(ledgers)))
            verified, problems = self._far.recv()
        except (OSError, EOFError):
            return Verdict(0, compared=False, problems=["the process that verifies ended before its time"])
        self._process.join()
        return Verdict(verified, bool(audits and ledgers), problems)

    def close(self) -> None:
        """End the process, if it did not come to a result."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._far.close()

    def _note(self, *event: Any) -> None:
        self._events.append(event)
        if len(self._events) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        # Where nobody is left to verify, `result` says so.
        with suppress(OSError):
            self._far.send(self._events)
        self._events = []


def _verify(near: Connection, public_key_pem: bytes) -> None:
    # A terminal sends Ctrl-C to all of the group, and there is the more to verify then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    proof = Proof(public_key_pem, verify_each=True)
    problems: list[str] = []
    verified = 0
    while isinstance(events := near.recv(), list):
        for event in events:
            try:
                verified += _take(proof, *event)
            except NotProvenError as error:
                problems.append(str(error))
            except (AttributeError, KeyError, TypeError, ValueError):
                problems.append(f"{event[1]} was answered with what is no signature")
    try:
        proof.check(*events)
    except NotProvenError as error:
        problems.append(str(error))
    near.send((verified, [*problems[:_MOST_PROBLEMS], *_rest(problems)]))


def _take(proof: Proof, what: str, name: str, *more: Any) -> int:
    if what == "send":
        proof.send(name, more[0])
    elif what == "give_up":
        proof.give_up(name)
    elif what == "complain":
        raise NotProvenError(name)
    else:
        answered, signature = more
        if answered != name:
            msg = f"{name} was answered with the signature of another transaction"
            raise NotProvenError(msg)
        proof.receive(name, signature)
        return 1
    return 0


def _rest(problems: Sequence[str]) -> list[str]:
    left = len(problems) - _MOST_PROBLEMS
    return [f"and {left} more"] if left > 0 else []
