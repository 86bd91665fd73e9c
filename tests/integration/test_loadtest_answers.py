"""The load test against an HTTP entrance that stalls and lies: real HTTP, real signatures."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from loadtest.messages import Book
from loadtest.mtls import Entrance
from loadtest.open_http import HttpDriver, HttpTarget
from loadtest.openloop import run_phase
from loadtest.proof import NotProvenError, Proof
from loadtest.schedule import Phase
from loadtest.tally import Tally
from loadtest.verifier import Verdict, Verifier
from signer.signatures import public_key_pem
from tests.integration.loadtests import KEY, Answer, change_value, new_verifier, sign

Doctor = Callable[[int, Answer], Answer]


def honest(_: int, answer: Answer) -> Answer:
    return answer


@contextmanager
def http_entrance(doctor: Doctor = honest, stall: Callable[[int], float] = lambda _: 0.0) -> Iterator[str]:
    """Answer one request at a time; the `stall` of a request is how many seconds everybody then waits."""
    one_at_a_time = threading.Lock()
    numbers = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/sign":
                self.send_error(404)
                return
            with one_at_a_time:
                number = next(numbers)
                time.sleep(stall(number))
                answer = doctor(number, sign(request["transaction_id"], request["message"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def load_with(verifier: Verifier, url: str, phase: Phase) -> Tally:
    async with HttpDriver(HttpTarget(url, connections=8), Book(200, 50), verifier, "T") as driver:
        return await run_phase(driver, phase, lambda _: None)


def load_http(url: str, rate: float, seconds: float) -> tuple[Tally, Verdict]:
    with new_verifier() as verifier:
        tally = asyncio.run(load_with(verifier, url, Phase("steady", seconds, rate, judged=True)))
        return tally, verifier.result([], [])


def test_a_stall_counts_for_everything_that_was_due_meanwhile() -> None:
    """One answer takes a second, and all that was due in it waits: a closed loop would see one slow answer in 150."""
    with http_entrance(stall=lambda number: 1.0 if number == 20 else 0.0) as url:
        tally, verdict = load_http(url, 50.0, 3.0)
    phase = tally.figures()
    assert (phase["transactions"], verdict.verified, verdict.problems) == (150, 150, [])
    assert phase["p99_ms"] > 900
    # Due in the first half of the stall, and so in flight for more than half a second.
    assert phase["p90_ms"] > 500


SPOILT: Sequence[tuple[Callable[[Answer], Any], str]] = [
    (change_value, "not the key's"),
    (lambda answer: answer | {"signature": sign("T-0", {"amount": "9"})["signature"]}, "not the key's"),
    (lambda answer: answer | {"transaction_id": "T-0"}, "another transaction"),
    (lambda answer: {"transaction_id": answer["transaction_id"]}, "no signature"),
    (lambda answer: answer | {"signature": None}, "no signature"),
    (lambda answer: answer | {"signature": {"value": "\u20ac"}}, "no signature"),
    (lambda answer: answer | {"signature": {"value": "%"}}, "no signature"),
    (lambda _: {}, "another transaction"),
    (lambda _: ["signed"], "another transaction"),
    (lambda _: None, "another transaction"),
]


def test_each_wrong_answer_among_many_is_found() -> None:
    """With status 200 and in good time, as all the others; and what is wrong with one is not said of the next."""
    with http_entrance(lambda number, answer: SPOILT[number][0](answer) if number < len(SPOILT) else answer) as url:
        tally, verdict = load_http(url, 60.0, 0.5)
    assert tally.figures()["transactions"] == 30
    assert verdict.verified == 30 - len(SPOILT)
    for said, times in Counter(said for _, said in SPOILT).items():
        assert sum(said in problem for problem in verdict.problems) == times, verdict.problems


def test_a_refusal_is_an_error_by_its_name() -> None:
    """It may have been signed all the same, so nothing is said of it but that."""
    with http_entrance() as url, new_verifier() as verifier:
        tally = asyncio.run(load_with(verifier, f"{url}/elsewhere", Phase("steady", 0.1, 50.0, judged=True)))
        assert verifier.result([], []).problems == []
    assert tally.figures()["error_kinds"] == {"HTTP 404": 5}


def measured_entrance(url: str, directory: Path) -> Entrance:
    """The entrance as `make mtls` loads it: five requests on one connection."""
    entrance = Entrance("plain", directory, urlsplit(url).port or 0, None, Proof(public_key_pem(KEY.public_key())))
    entrance.send_at_rate(5, 100.0)
    return entrance


def test_what_tls_costs_is_measured_over_good_signatures(tmp_path: Path) -> None:
    """The first request, for the handshake's sake, is not timed but verified as all are."""
    with http_entrance() as url:
        entrance = measured_entrance(url, tmp_path)
    entrance.verify()
    assert (len(entrance.kept), entrance.proof.check([], [])) == (5, 6)


@pytest.mark.parametrize(("spoil", "said"), SPOILT[:3])
def test_what_tls_costs_is_not_said_of_a_wrong_signature(
    spoil: Callable[[Answer], Answer], said: str, tmp_path: Path
) -> None:
    """The last of six, with status 200."""
    with http_entrance(lambda number, answer: spoil(answer) if number == 5 else answer) as url:
        entrance = measured_entrance(url, tmp_path)
    with pytest.raises(NotProvenError, match=said):
        entrance.verify()
