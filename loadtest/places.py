"""Where a load test goes: a service brought up for it, or one that runs already."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import boto3

from loadtest.open_http import HttpTarget
from loadtest.options import headers, tls
from loadtest.public_keys import read_public_key
from loadtest.resources import Meter
from loadtest.stage import Module, Service, open_stage

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, slots=True)
class Place:
    """A running service, as a load needs it."""

    public_key: bytes
    meter: Meter
    note: str
    http: HttpTarget | None = None
    sqs: "SQSClient | None" = None
    queues: dict[str, str] = field(default_factory=dict)
    service: Service | None = None
    """Where it is ours: it is ended, then its ledger and audit log are read."""

    def end(self) -> tuple[list[Path], list[Path]]:
        """End the service if it is ours, and give its audit log and its ledger to compare with."""
        if self.service is None:
            return [], []
        self.service.program.terminate()
        return [self.service.audit], [self.service.ledger]


@contextmanager
def local(sessions: int) -> Iterator[Place]:
    """Bring up a service over the 5-10 ms module, with everything it needs."""
    # Lognormal, with 5 and 10 ms as its 5th and 95th percentile; and it does sign, each time.
    module = Module("shim-cloudhsm", "cloudhsm", replays=False, sessions=sessions)
    with (
        TemporaryDirectory(prefix="loadtest") as directory,
        open_stage(Path(directory) / "stage", module) as stage,
        stage.service("service", {}) as service,
    ):
        stack = service.stack
        processes = {"service": service.program.pid, "emulator": stage.emulator.pid}
        meter = Meter(processes, stage.shim.process(service.program.pid), module.sessions)
        note = f"One process of the service, {module.sessions} sessions of an HSM module that takes 5-10 ms."
        http = HttpTarget(stack.http_url)
        yield Place(service.public_key(), meter, note, http, stack.sqs, stack.queues, service)


def deployed(arguments: Namespace) -> Place:
    """Reach a service that runs already; raises `ValueError` where the arguments do not say enough."""
    if arguments.public_key is None:
        msg = "a service that runs already needs --public-key: what it says of itself proves nothing"
        raise ValueError(msg)
    key = read_public_key(arguments.public_key.read_bytes(), arguments.kid)
    note = "A service that ran already: its ledger and audit log were not read."
    if arguments.target == "http":
        if not arguments.url:
            msg = "--target http needs --url"
            raise ValueError(msg)
        return Place(key, Meter({}), note, HttpTarget(arguments.url.rstrip("/"), tls(arguments), headers(arguments)))
    if not (arguments.inbound_url and arguments.outbound_url):
        msg = "--target sqs needs --inbound-url and --outbound-url"
        raise ValueError(msg)
    sqs = boto3.client("sqs", endpoint_url=arguments.aws_endpoint_url)
    return Place(
        key, Meter({}), note, sqs=sqs, queues={"inbound": arguments.inbound_url, "outbound": arguments.outbound_url}
    )
