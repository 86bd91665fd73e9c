"""What a load test is run against: a service brought up for it, or one that runs already."""

import argparse
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from loadtest.open_http import HttpTarget
from loadtest.open_sqs import SqsTarget
from loadtest.public_keys import read_public_key
from loadtest.resources import Meter
from loadtest.stage import Module, open_stage

_CONNECTIONS: Final = 16


class NoSiteError(Exception):
    """What was said on the command line names no place that can be tested."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where to send, with which key to verify, and what there is to be read beside it."""

    name: str
    public_key_pem: bytes
    target: HttpTarget | SqsTarget
    meter: Meter
    audits: Sequence[Path] = ()
    ledgers: Sequence[Path] = ()
    end: Callable[[], object] = lambda: None
    """Ends the service, so that what it recorded can be read whole."""


@contextmanager
def open_site(options: argparse.Namespace) -> Iterator[Site]:
    """Give the site that was asked for; raises `NoSiteError`."""
    if options.url or options.inbound_url:
        yield deployed_site(options)
        return
    with TemporaryDirectory(prefix="loadtest") as temporary:
        directory = options.directory or Path(temporary) / "stage"
        if directory.exists():
            msg = f"{directory} exists already"
            raise NoSiteError(msg)
        with _local_site(options, directory) as site:
            yield site


@contextmanager
def _local_site(options: argparse.Namespace, directory: Path) -> Iterator[Site]:
    # Lognormal, with 5 and 10 ms as its 5th and 95th percentile.
    module = Module("shim-cloudhsm", "cloudhsm", replays=options.replay, sessions=options.sessions)
    with open_stage(directory, module) as stage, stage.service("service", {}) as service:
        stack, queues = service.stack, service.stack.queues
        http = HttpTarget(stack.http_url)
        sqs = SqsTarget(stack.sqs, queues["inbound"], queues["outbound"], size=options.batch)
        processes = {"service": service.program.pid, "queue": stage.emulator.pid}
        yield Site(
            f"One process of the service, {options.sessions} sessions of an HSM that takes 5-10 ms"
            + (" (each of 500 messages signed once, then given again)" if options.replay else ""),
            service.public_key(),
            http if options.target == "http" else sqs,
            Meter(processes, stage.shim.process(service.program.pid), options.sessions),
            [service.audit],
            [service.ledger],
            service.program.terminate,
        )


def deployed_site(options: argparse.Namespace) -> Site:
    """Take what is said of a service that runs already; raises `NoSiteError` where that is not enough."""
    if options.public_key is None:
        msg = "a service that runs already needs --public-key: what it says of itself proves nothing"
        raise NoSiteError(msg)
    try:
        key = read_public_key(options.public_key.read_bytes(), options.kid)
        target = _http_target(options) if options.target == "http" else _sqs_target(options)
    except (OSError, ValueError, BotoCoreError) as error:
        raise NoSiteError(str(error)) from error
    return Site("A service that ran already", key, target, Meter({}))


def _http_target(options: argparse.Namespace) -> HttpTarget:
    if not options.url:
        msg = "--target http needs --url"
        raise NoSiteError(msg)
    return HttpTarget(options.url.rstrip("/"), _tls(options), _headers(options), options.key)


def _sqs_target(options: argparse.Namespace) -> SqsTarget:
    if not (options.inbound_url and options.outbound_url):
        msg = "--target sqs needs --inbound-url and --outbound-url"
        raise NoSiteError(msg)
    connections = Config(max_pool_connections=_CONNECTIONS)
    sqs = boto3.client("sqs", endpoint_url=options.aws_endpoint_url, config=connections)
    return SqsTarget(sqs, options.inbound_url, options.outbound_url, options.key, options.batch)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.url.startswith("https://"):
        return None
    context = ssl.create_default_context(cafile=options.ca)
    if options.client_cert is not None:
        context.load_cert_chain(options.client_cert, options.client_key)
    return context


def _headers(options: argparse.Namespace) -> dict[str, str]:
    if options.token_file is None:
        return {}
    return {"Authorization": f"Bearer {options.token_file.read_text(encoding='ascii').strip()}"}
