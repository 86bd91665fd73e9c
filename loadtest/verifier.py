"""Verifies what a load gets, in a process of its own: the CPU it takes must not make the generator late."""

import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from loadtest.proof import NotProvenError, Proof

_CHUNK: Final = 50
_MOST_PROBLEMS: Final = 20


class Verifier:
    """Feeds a `Proof` in another process."""

    def __init__(self, public_key_pem: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._far, far = context.Pipe()
        self._process = context.Process(target=_verify, args=(far, public_key_pem), daemon=True)
        self._process.start()
        far.close()
        self._events: list[tuple[Any, ...]] = []

    def send(self, transaction_id: str, digest: bytes) -> None:
        """Note what goes in."""
        self._note("send", transaction_id, digest)

    def receive(self, asked: str, answered: str, signature: Mapping[str, str]) -> None:
        """Have verified what came out, under the id that it says it is for."""
        self._note("receive", asked, answered, dict(signature))

    def give_up(self, transaction_id: str) -> None:
        """Note that no signature came, and that there may be one all the same."""
        self._note("give_up", transaction_id)

    def result(self, audits: Sequence[Path], ledgers: Sequence[Path]) -> tuple[int, list[str]]:
        """Wait until all is verified and compared; gives the number of good signatures, and what was wrong."""
        self._flush()
        self._far.send((list(audits), list(ledgers)))
        verified, problems = self._far.recv()
        self._process.join()
        return int(verified), list(problems)

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
        self._far.send(self._events)
        self._events = []


def _verify(near: Connection, public_key_pem: bytes) -> None:
    proof = Proof(public_key_pem)
    problems: list[str] = []
    verified = 0
    while isinstance(events := near.recv(), list):
        for event in events:
            try:
                verified += _take(proof, event)
            except NotProvenError as error:
                problems.append(str(error))
            except (KeyError, TypeError, ValueError):
                problems.append("an answer was not what an answer looks like")
    try:
        proof.check(*events)
    except NotProvenError as error:
        problems.append(str(error))
    near.send((verified, [*problems[:_MOST_PROBLEMS], *_rest(problems)]))


def _take(proof: Proof, event: tuple[Any, ...]) -> int:
    what, name, *more = event
    if what == "send":
        proof.send(name, more[0])
    elif what == "give_up":
        proof.give_up(name)
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
