"""The load generator against HTTP servers that stall, and that answer what they should not."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import rfc8785
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from loadtest.messages import Book
from loadtest.objectives import failures, parse_objectives
from loadtest.open_http import HttpDriver, HttpTarget
from loadtest.openloop import run_phase
from loadtest.schedule import Phase
from loadtest.tally import Tally
from loadtest.verifier import Verifier

KEY = generate_private_key(65537, 2048)
OTHER_KEY = generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signature(message: dict[str, Any], key: RSAPrivateKey = KEY) -> dict[str, str]:
    canonical = rfc8785.dumps(message)
    value = key.sign(canonical, padding.PKCS1v15(), hashes.SHA256())
    digest = hashlib.sha256(canonical).digest()
    return {"value": base64.b64encode(value).decode(), "digest": base64.b64encode(digest).decode(), "audit_id": "A"}


class Server:
    """Signs as the service does, and does something wrong as it is told."""

    def __init__(self, wrong: str = "", stall: tuple[float, float] = (0.0, 0.0)) -> None:
        self.wrong, self.stall = wrong, stall
        self.began_s: float | None = None
        self.numbers = count()
        self.first: dict[str, Any] | None = None

    async def sign(self, request: web.Request) -> web.Response:
        asked = await request.json()
        at_s = time.perf_counter()
        self.began_s = self.began_s or at_s
        if self.stall[0] <= at_s - self.began_s < self.stall[1]:
            await asyncio.sleep(self.began_s + self.stall[1] - at_s)
        answer = {"transaction_id": asked["transaction_id"], "signature": signature(asked["message"])}
        self.first = self.first or answer
        if next(self.numbers) != 3:
            return web.json_response(answer)
        return self.doctored(asked, answer)

    def doctored(self, asked: dict[str, Any], answer: dict[str, Any]) -> web.Response:
        if self.wrong == "status":
            return web.json_response({"code": "unavailable"}, status=503)
        if self.wrong == "other key":
            answer["signature"] = signature(asked["message"], OTHER_KEY)
        if self.wrong == "other message":
            answer["signature"] = signature({"amount": "1.00"})
        if self.wrong == "no signature":
            del answer["signature"]
        if self.wrong == "another's":
            answer = self.first or {}
        if self.wrong == "other id":
            answer["transaction_id"] = "T-0"
        if self.wrong == "not JSON":
            return web.Response(text="signed")
        return web.json_response(answer)


async def load(server: Server, verifier: Verifier, phase: Phase, connections: int = 64) -> Tally:
    application = web.Application()
    application.router.add_post("/v1/sign", server.sign)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = HttpTarget(f"http://127.0.0.1:{runner.addresses[0][1]}", connections=connections)
    try:
        async with HttpDriver(target, Book(250, 50), verifier, "T") as driver:
            return await run_phase(driver, phase, lambda _: None)
    finally:
        await runner.cleanup()


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    made = Verifier(PEM)
    yield made
    made.close()


def test_all_that_is_right_is_verified(verifier: Verifier) -> None:
    """As many signatures as arrivals, each of them good."""
    tally = asyncio.run(load(Server(), verifier, Phase("steady", 1.0, 50.0)))
    assert (tally.due, tally.done, tally.errors.total()) == (50, 50, 0)
    assert verifier.result([], []) == (50, [])


@pytest.mark.parametrize("connections", [64, 1])
def test_a_stall_counts_for_all_who_would_have_come(verifier: Verifier, connections: int) -> None:
    """A server that stalls for 600 ms of 2 s is slow for a third of the arrivals, even where they share a connection.

    Whoever measures from the moment a free connection took the request sees one slow answer in a hundred.
    """
    tally = asyncio.run(load(Server(stall=(0.4, 1.0)), verifier, Phase("steady", 2.0, 50.0), connections))
    figures = tally.figures()
    assert figures["p90_ms"] >= 300.0
    assert figures["p99_ms"] >= 500.0
    assert verifier.result([], []) == (100, [])


@pytest.mark.parametrize("wrong", ["other key", "other message", "no signature", "another's", "other id"])
def test_one_wrong_answer_is_found(verifier: Verifier, wrong: str) -> None:
    """One of fifty is not what was asked for, and the run is not proven."""
    asyncio.run(load(Server(wrong), verifier, Phase("steady", 1.0, 50.0)))
    verified, problems = verifier.result([], [])
    assert verified == 49
    assert problems


@pytest.mark.parametrize(("wrong", "kind"), [("status", "HTTP 503"), ("not JSON", "JSONDecodeError")])
def test_a_refusal_is_an_error_of_the_phase(verifier: Verifier, wrong: str, kind: str) -> None:
    """It is counted under its name, and the objective of no errors is missed."""
    tally = asyncio.run(load(Server(wrong), verifier, Phase("steady", 1.0, 50.0, judged=True)))
    assert tally.figures()["error_kinds"] == {kind: 1}
    assert any("errors" in each for each in failures([tally.figures()], parse_objectives("errors=0"), 1e6))


def test_a_signature_that_comes_twice_is_found(verifier: Verifier) -> None:
    """Of two answers to one transaction the second one is no second signature."""
    page = Book(250, 1).pages[0]
    verifier.send("T-1", page.digest)
    for _ in range(2):
        verifier.receive("T-1", "T-1", signature(json.loads(page.text)))
    assert verifier.result([], []) == (1, ["T-1 came out twice"])


def test_a_transaction_that_does_not_come_is_found(verifier: Verifier) -> None:
    """What was sent and neither signed nor refused is missing."""
    verifier.send("T-1", b"digest")
    assert verifier.result([], []) == (0, ["1 of 1 transactions did not come back"])


class Slow:
    """An entrance that takes the event loop's time, as a generator does that has too little CPU."""

    size = 1

    async def send(self, tally: Tally, intended_s: float) -> None:
        tally.start(intended_s)
        time.sleep(0.02)  # noqa: ASYNC251 - that is what it is for
        tally.finish(intended_s)


def test_a_generator_that_falls_behind_fails() -> None:
    """It could start 50 a second and was to start 200: what it measured is not what was asked."""
    tally = asyncio.run(run_phase(Slow(), Phase("steady", 0.5, 200.0, judged=True), lambda _: None))
    (said, *_) = failures([tally.figures()], parse_objectives("errors=0"), 50.0)
    assert "the generator fell behind" in said
