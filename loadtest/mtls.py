"""Prints what mutual TLS costs: `/v1/sign` with it and without, in turns, in one run: `python -m loadtest.mtls`.

Two services over one SoftHSM token, one plain and one that asks for client certificates. Each round sends the same
number of requests to both, on one kept connection each, at a fixed rate: a request's time counts from the moment at
which it was due (open loop), so a stall is seen in all that it delays. New connections are timed apart. Every signature
is verified between the timed parts, and stands in ledger and audit log exactly once.
"""

import argparse
import http.client
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from loadtest.messages import ALIAS, Book, request_body
from loadtest.proof import NotProvenError, Proof
from loadtest.stopping import clean_up_at_sigterm
from signer.demo.processes import Program, free_port
from signer.demo.stack import KEY_LABEL, Token, provision
from tests.pki import Authority, client_context, server_certificate, uri

CALLER: Final = "spiffe://bank.example/settlement"
_PAGES: Final = 500
_CONNECTIONS: Final = 20
"""How many new connections are timed in each round."""


@dataclass
class Entrance:
    """One of the two services, and what was measured on it, in seconds."""

    name: str
    directory: Path
    """Where its service keeps what it keeps."""
    port: int
    context: ssl.SSLContext | None
    proof: Proof
    kept: list[float] = field(default_factory=list)
    fresh: list[float] = field(default_factory=list)
    _book: Book = field(default_factory=lambda: Book(0, _PAGES))
    _answers: list[tuple[str, bytes]] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        """Give a connection that is not open yet."""
        if self.context is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.context)

    def sign(self, connection: http.client.HTTPConnection) -> None:
        """Ask for one signature and read it; `verify` looks at it."""
        name, page = self._book.take("T")
        self.proof.send(name, page.digest)
        connection.request("POST", "/v1/sign", request_body(name, page), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        self._answers.append((name, answer.read()))
        if answer.status != http.client.OK:
            msg = f"{self.name} answered {answer.status}"
            raise NotProvenError(msg)

    def verify(self) -> None:
        """Verify all that came since it was last called; raises `NotProvenError`."""
        for name, body in self._answers:
            answer = json.loads(body)
            if answer["transaction_id"] != name:
                msg = f"{name} was answered with the signature of another transaction"
                raise NotProvenError(msg)
            self.proof.receive(name, answer["signature"])
        self._answers.clear()

    def check(self) -> int:
        """Compare with what the service recorded, once it has ended; gives the number of signatures."""
        return self.proof.check([self.directory / "audit"], [self.directory / "ledger.sqlite3"])

    def send_at_rate(self, requests: int, per_s: float) -> None:
        """Send requests when they are due, and time each from then."""
        with closing(self.connect()) as connection:
            self.sign(connection)  # the handshake is timed apart
            start_s = time.perf_counter()
            for number in range(requests):
                due_s = start_s + number / per_s
                time.sleep(max(0.0, due_s - time.perf_counter()))
                self.sign(connection)
                self.kept.append(time.perf_counter() - due_s)

    def connect_anew(self, times: int) -> None:
        """Time a signature on a connection of its own, handshake included."""
        for _ in range(times):
            start_s = time.perf_counter()
            with closing(self.connect()) as connection:
                self.sign(connection)
            self.fresh.append(time.perf_counter() - start_s)


@contextmanager
def two_services(directory: Path) -> Iterator[tuple[Entrance, Entrance]]:
    """Run both for the block."""
    root = Authority("Root")
    token = provision(directory / "token")
    (directory / "ca.pem").write_bytes(root.pem)
    (directory / "crl.pem").write_bytes(root.crl())
    certificate, key = server_certificate(root).write(directory, "server")
    context = client_context(root, directory, root.issue("settlement", [uri(CALLER)]))
    tls = {
        "CERTIFICATE": certificate,
        "KEY": key,
        "CLIENT_CA": directory / "ca.pem",
        "CLIENT_CRL": directory / "crl.pem",
    }
    with ExitStack() as closing_all:
        ports = []
        for name, files in (("plain", {}), ("mtls", tls)):
            environment = {f"SIGNER_HTTP__TLS__{name}": str(path) for name, path in files.items()}
            ports.append(_start(directory / name, token, environment, closing_all))
        with urlopen(f"http://127.0.0.1:{ports[0]}/v1/keys/{ALIAS}/public-key", timeout=10) as answer:
            key = answer.read()
        yield (
            Entrance("plain", directory / "plain", ports[0], None, Proof(key, verify_each=True)),
            Entrance("mutual TLS", directory / "mtls", ports[1], context, Proof(key, verify_each=True)),
        )


def _start(directory: Path, token: Token, environment: dict[str, str], closing_all: ExitStack) -> int:
    directory.mkdir()
    port, health_port = free_port(), free_port()
    settings = {
        "SIGNER_HSM__MODULE": str(token.module),
        "SIGNER_HSM__TOKEN": token.label,
        "SIGNER_HSM__PIN_FILE": str(token.pin_file),
        "SIGNER_HSM__SESSIONS": str(os.cpu_count() or 2),
        "SIGNER_KEYS": json.dumps({"settlement": {"label": KEY_LABEL, "callers": [CALLER, "http:loopback"]}}),
        "SIGNER_LEDGER__PATH": str(directory / "ledger.sqlite3"),
        "SIGNER_AUDIT__DIRECTORY": str(directory / "audit"),
        "SIGNER_HTTP__PORT": str(port),
        "SIGNER_HTTP__HEALTH__PORT": str(health_port),
    }
    command = [sys.executable, "-m", "signer", "serve"]
    program = Program(command, {**os.environ, **token.environment, **settings, **environment}, directory / "serve.log")
    closing_all.callback(program.terminate)
    program.wait_for(f"http://127.0.0.1:{health_port}/readyz")
    return port


def _row(name: str, what: str, seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"| {name} | {what} | {len(seconds)} | {cuts[49] * 1e3:.2f} | {cuts[98] * 1e3:.2f} |"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=300, help="to each service in each round")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as name:
            entrances, signatures = _measure(Path(name), arguments.rounds, arguments.requests, arguments.rate)
    except NotProvenError as error:
        sys.exit(f"not proven: {error}")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"
    print(f"{machine}, {signatures:,} signatures verified", file=sys.stderr)  # noqa: T201
    rows = [_row(entrance.name, "kept connection", entrance.kept) for entrance in entrances]
    rows += [_row(entrance.name, "new connection", entrance.fresh) for entrance in entrances]
    head = ["| entrance | connection | requests | p50 ms | p99 ms |", "| --- | --- | --- | --- | --- |"]
    print("\n".join([*head, *rows]))  # noqa: T201


def _measure(directory: Path, rounds: int, requests: int, per_s: float) -> tuple[tuple[Entrance, Entrance], int]:
    """Give both, measured, and how many signatures they gave; raises `NotProvenError`."""
    with two_services(directory) as entrances:
        for number in range(rounds):
            for entrance in entrances if number % 2 else reversed(entrances):
                entrance.send_at_rate(requests, per_s)
                entrance.connect_anew(_CONNECTIONS)
                entrance.verify()
    return entrances, sum(entrance.check() for entrance in entrances)


if __name__ == "__main__":
    clean_up_at_sigterm()
    main()
