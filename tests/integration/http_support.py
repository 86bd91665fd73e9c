"""The HTTP entrance on a real port, over simulated edges, and clients for it: one polite, one not."""

import base64
import hashlib
import http.client
import io
import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Self

import httpx
import jsonschema_rs
import structlog
from fastapi import FastAPI

from signer import logs
from signer.api import catalogue
from signer.api.app import create_app
from signer.api.credentials import open_credentials
from signer.api.parts import Parts
from signer.api.problems import CATALOGUE_PATH, PROBLEM_MEDIA_TYPE
from signer.api.server import ApiServer
from signer.authority import Authority
from signer.deadlines import Deadline
from signer.errors import SignerError
from signer.metrics import Metrics
from signer.policy import CallerPolicy, Grant, Policy
from signer.ports import RawSignature, SignTask
from signer.readiness import Readiness
from signer.settings import HttpSettings
from signer.signatures import algorithm_named, verifies
from tests.simulators import SimulatedAuditLog, SimulatedKeyRing, SimulatedLedger, private_key, simulate

ALIAS = "settlement"
FORBIDDEN_ALIAS = "payout"
UNKNOWN_ALIAS = "unheard-of"
"""Granted by the policy, and not configured."""
NO_ALIAS = "nobodys"
"""Neither."""
CALLER = "http:loopback"
CALLERS = {ALIAS: frozenset({CALLER}), FORBIDDEN_ALIAS: frozenset[str]()}
PATIENCE_S = 20.0
MESSAGE = {"amount": "1250.00", "currency": "EUR"}
CANONICAL_MESSAGE = b'{"amount":"1250.00","currency":"EUR"}'

USUAL_HEADERS = {"date", "connection", "content-length", "content-type", "cache-control", "x-content-type-options"}
"""Of any answer over HTTP: no description needs to name them."""


class ObservedKeyRing(SimulatedKeyRing):
    """Remembers the threads it was called on, and spoils its signatures when told to."""

    def __init__(self, *aliases: str) -> None:
        super().__init__(*aliases)
        self.threads: set[str] = set()
        self.spoils = False

    def sign(self, tasks: Sequence[SignTask], deadline: Deadline, **how: Any) -> list[RawSignature | SignerError]:
        """Sign, and remember where."""
        self.threads.add(threading.current_thread().name)
        answers = super().sign(tasks, deadline, **how) if tasks else []
        return [_spoiled(answer) if self.spoils else answer for answer in answers]


@dataclass
class Entrance:
    """The running HTTP entrance, and everything it stands on."""

    app: FastAPI
    server: ApiServer
    port: int
    key_ring: ObservedKeyRing
    ledger: SimulatedLedger
    authority: Authority
    audit: SimulatedAuditLog
    metrics: Metrics
    readiness: Readiness
    log: io.StringIO
    client: httpx.Client

    def sign(self, **changes: Any) -> httpx.Response:
        """Ask for a signature; a member set to None is left out."""
        return self.client.post("/v1/sign", json=signing_request(**changes))

    def sample(self, name: str, **labels: str) -> float:
        """Read one metric, 0 where there is none yet."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """Read the log lines of one kind."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def connect(self) -> "RawConnection":
        """Speak HTTP by hand."""
        return RawConnection(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))


class RawConnection:
    """A client without manners."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader = connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send octets as they are."""
        self.socket.sendall(data)

    def post(self, headers: Mapping[str, str], body: bytes = b"", path: str = "/v1/sign") -> None:
        """Send a request with exactly these headers (and `Host`)."""
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def answer(self) -> tuple[int, Mapping[str, str], Any]:
        """Read one answer: status, headers (names in lower case) and parsed JSON."""
        status = int(self._reader.readline().split()[1])
        headers = {name.lower(): value for name, value in http.client.parse_headers(self._reader).items()}
        document = json.loads(self._reader.read(int(headers["content-length"])))
        _look_up(document)
        return status, headers, document

    def go_ahead(self) -> bool:
        """Read the leave to send a body (`Expect: 100-continue`)."""
        return (self._reader.readline(), self._reader.readline()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")

    def is_closed(self) -> bool:
        """Wait for the server to hang up."""
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True


@cache
def _catalogue() -> Mapping[str, catalogue.Entry]:
    return {entry.code: entry for entry in catalogue.entries()}


def _look_up_answer(response: httpx.Response) -> None:
    if response.headers.get("content-type") == PROBLEM_MEDIA_TYPE and response.request.method != "HEAD":
        _look_up(json.loads(response.read()))


def _compare(app: FastAPI, response: httpx.Response) -> None:
    """Hold each answer against the description of its route: its status, its headers, and the shape of a document."""
    method, asked, document = response.request.method.lower(), response.request.url.path, app.openapi()
    for path, methods in document["paths"].items():
        if method in methods and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), asked):
            told = methods[method]["responses"][str(response.status_code)]
            named = {name.lower() for name in told.get("headers", {})}
            assert response.headers.keys() <= named | USUAL_HEADERS, (method, path, response.status_code)
            media_type = response.headers.get("content-type", "")
            if media_type.endswith("json"):
                schema = {**told["content"][media_type]["schema"], "components": document["components"]}
                jsonschema_rs.validate(schema, json.loads(response.read()))


def _look_up(document: Any) -> None:
    """Hold each problem that any test is answered with against the catalogue that its `type` leads to."""
    if isinstance(document, dict) and {"type", "code", "status"} <= document.keys():
        entry = _catalogue()[document["code"]]
        assert document["type"] == f"{CATALOGUE_PATH}#{entry.code}"
        assert (document["status"], document["retryable"]) == (entry.status, entry.retryable), entry


def signing_request(**changes: Any) -> dict[str, Any]:
    """A request that is signed, with `changes`; a member set to None is left out."""
    document = {"key": ALIAS, "transaction_id": "TXN-000001", "message": MESSAGE, **changes}
    return {name: value for name, value in document.items() if value is not None}


def is_valid(answer: Mapping[str, Any], content: bytes) -> bool:
    """Verify the signature of an answer over `content` with nothing but the public key."""
    signature = answer["signature"]
    return verifies(
        private_key(ALIAS).public_key(),
        algorithm_named(signature["algorithm"]),
        hashlib.sha256(content).digest(),
        base64.b64decode(signature["value"]),
    )


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline, pause = Deadline.after(PATIENCE_S), threading.Event()
    while not condition():
        deadline.check()
        pause.wait(0.005)


def allow(entrance: Entrance, *, roles: frozenset[str] = frozenset(), **limits: Any) -> None:
    """Put a policy in force that lets the caller of these tests use the key, and says more about it."""
    caller = CallerPolicy({ALIAS: Grant()}, roles=roles, **limits)
    entrance.authority.replace(Policy({CALLER: caller}))


@contextmanager
def running(
    *,
    signing_timeout_s: float = PATIENCE_S,
    drain_timeout_s: float = PATIENCE_S,
    require_transaction_id: bool = True,
    sessions: int = 2,
    **settings: Any,
) -> Iterator[Entrance]:
    """Run the entrance for the block."""
    http_settings = HttpSettings(port=0, **settings)
    simulation = simulate(CALLERS, require_transaction_id=require_transaction_id)
    key_ring, audit, metrics = ObservedKeyRing(*CALLERS), simulation.audit, simulation.metrics
    simulation = replace(simulation, key_ring=key_ring)
    granted = {name: known.keys for name, known in simulation.authority.current().callers.items()}
    callers = {name: CallerPolicy({**keys, UNKNOWN_ALIAS: keys[ALIAS]}) for name, keys in granted.items()}
    simulation.authority.replace(Policy(callers))
    with ExitStack() as closing, captured_log() as log:
        logger = logs.get("signer.http")
        readiness = Readiness(key_ring, audit, metrics, logger, lambda: datetime.now(UTC), 3600.0)
        readiness.probe()
        for traces in (key_ring.signed, key_ring.threads, audit.entries):
            traces.clear()
        credentials = closing.enter_context(
            open_credentials(http_settings, audit, metrics, logger, lambda: datetime.now(UTC))
        )
        if credentials.tls is not None:
            readiness.heed(credentials.tls.warnings)
        authenticator = credentials.authenticator
        app = create_app(
            Parts(
                simulation.service,
                simulation.inquiries,
                simulation.rehearsal,
                readiness,
                simulation.authority,
                authenticator,
                metrics,
                logger,
                http_settings,
                signing_timeout_s,
                sessions=sessions,
            )
        )
        server = ApiServer(app, http_settings, logger, drain_timeout_s, credentials)
        port = server.start()
        closing.callback(server.close)
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [_look_up_answer, partial(_compare, app)]}
        client = closing.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, event_hooks=hooks)
        )
        yield Entrance(
            app, server, port, key_ring, simulation.ledger, simulation.authority, audit, metrics, readiness, log, client
        )


@contextmanager
def captured_log(lowest: str = "DEBUG") -> Iterator[io.StringIO]:
    """Collect what every logger of the process writes; all but the test's own client. Afterwards it is as before."""
    root, log = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure(lowest, log)
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield log
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def _spoiled(answer: RawSignature | SignerError) -> RawSignature | SignerError:
    return replace(answer, value=bytes(len(answer.value)), sound=False) if isinstance(answer, RawSignature) else answer
