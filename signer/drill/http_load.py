"""The load on the HTTP entrance: payment clients that come again with the same transaction until it is signed."""

import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from signer.drill.evidence import Event, Evidence, Released, Sent
from signer.drill.loops import Steady
from signer.signatures import ALGORITHMS

_ALGORITHMS: Final = tuple(ALGORITHMS)
_NO_ANSWER: Final = "no_answer"
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 5.0
_EVERY_RIVAL: Final = 10


@dataclass(frozen=True, slots=True)
class _Answer:
    signature: Mapping[str, str] | None
    code: str
    retryable: bool
    asked_s: float


class HttpLoad:
    """Sends one transaction after another, each from a client of its own."""

    def __init__(self, url: str, rate_per_s: float, patience_s: float, evidence: Evidence) -> None:
        self._host = urlsplit(url).netloc
        self._patience_s = patience_s
        self._evidence = evidence
        self._clients: list[threading.Thread] = []
        self._arrivals = Steady("http-arrivals", rate_per_s, self._arrive)

    def check(self) -> None:
        """Raise what ended the arrivals."""
        self._arrivals.check()

    def stop(self) -> None:
        """Let nobody come any more; those who came go on trying."""
        self._arrivals.stop()

    def finished(self) -> bool:
        """Whether every client has its signature, or has given up."""
        return not any(client.is_alive() for client in self._clients)

    def _arrive(self, number: int) -> None:
        client = threading.Thread(target=self._pay, args=(number,), name=f"client-{number}", daemon=True)
        self._clients = [other for other in self._clients if other.is_alive()] + [client]
        client.start()

    def _pay(self, number: int) -> None:
        message = {"amount": f"{number}.00", "currency": "EUR", "creditor": f"DE{number:020}"}
        sent = Sent(f"DRILL-H-{number}", "http", message, time.time())
        self._evidence.send(sent)
        give_up_s, pause_s = time.monotonic() + self._patience_s, _PAUSE_S
        while not (answer := self._ask(number, sent.transaction_id, message)).signature:
            self._evidence.note(Event(time.time(), "http", answer.code))
            if not answer.retryable or time.monotonic() > give_up_s:
                return
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, _LONGEST_PAUSE_S)
        self._evidence.release(Released(sent.transaction_id, answer.signature))
        self._evidence.note(Event(time.time(), "http", None, answer.asked_s))
        if number % _EVERY_RIVAL == 0:
            self._be_a_rival(number, sent)

    def _be_a_rival(self, number: int, sent: Sent) -> None:
        """Ask for the same transaction with another amount: a signature would be evidence like any other."""
        answer = self._ask(number, sent.transaction_id, {**sent.message, "amount": "999999.00"})
        if answer.signature:
            self._evidence.release(Released(sent.transaction_id, answer.signature))

    def _ask(self, number: int, transaction_id: str, message: Mapping[str, str]) -> _Answer:
        algorithm = _ALGORITHMS[number % len(_ALGORITHMS)]
        asked_s = time.time()
        wanted = {"key": "settlement", "transaction_id": transaction_id, "algorithm": algorithm, "message": message}
        try:
            answer = self._post(json.dumps(wanted).encode())
        except (OSError, http.client.HTTPException, ValueError):
            # The process died, or is not up yet: whether it signed is unknown, so the client must ask again.
            return _Answer(None, _NO_ANSWER, retryable=True, asked_s=asked_s)
        if "signature" in answer:
            return _Answer(answer["signature"], "", retryable=False, asked_s=asked_s)
        return _Answer(None, str(answer["code"]), bool(answer["retryable"]), asked_s)

    def _post(self, body: bytes) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._host, timeout=self._patience_s)
        try:
            connection.request("POST", "/v1/sign", body, {"Content-Type": "application/json"})
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()
