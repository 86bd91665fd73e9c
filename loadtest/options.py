"""The command line of the load test."""

import argparse
import ssl
from pathlib import Path

from loadtest.objectives import parse_objectives
from loadtest.schedule import Shape


def parser() -> argparse.ArgumentParser:
    """Make the parser."""
    made = argparse.ArgumentParser(
        prog="python -m loadtest",
        description="Loads one entrance in open loop and proves what came out. Without --url or --inbound-url it "
        "brings up a service of its own over a module that takes 5-10 ms. "
        "Status 1: an objective was missed or the generator fell behind; 2: the arguments are wrong.",
    )
    made.add_argument("--target", choices=("http", "sqs"), required=True)
    made.add_argument(
        "--objective",
        type=parse_objectives,
        metavar="p99=100ms,errors=0",
        help="of the steady state, the soak, and what follows a spike; over the queues the default is p99=1s,errors=0",
    )
    made.add_argument("--poisson", action="store_true", help="arrivals by chance, not even ones")
    made.add_argument("--seed", type=int, default=1, help="of that chance")
    made.add_argument("--most-lag-ms", type=float, default=50.0, help="how late the generator may be, p99")
    made.add_argument("--batch", type=int, default=25, help="transactions in a queue message")
    made.add_argument("--message-bytes", type=int, default=250)
    made.add_argument("--sessions", type=int, default=64, help="of the HSM, for a service of its own")
    made.add_argument("--reports", type=Path, default=Path(".local/reports"))
    _add_shape(made.add_argument_group("phases, in transactions a second and seconds"))
    _add_deployed(made.add_argument_group("a service that runs already"))
    return made


def shape(arguments: argparse.Namespace) -> Shape:
    """Give what was asked for."""
    return Shape(
        rate=arguments.rate,
        steady_s=arguments.duration,
        warm_up_s=arguments.warm_up,
        spike_rate=arguments.spike,
        spike_s=arguments.spike_seconds,
        soak_s=arguments.soak,
        ramp_to=arguments.ramp_to,
        ramp_steps=arguments.ramp_steps,
        ramp_step_s=arguments.ramp_step_seconds,
    )


def tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """Give what the client certificate and the authorities named make; None where neither is named."""
    if not (arguments.ca or arguments.client_cert):
        return None
    context = ssl.create_default_context(cafile=arguments.ca)
    if arguments.client_cert:
        context.load_cert_chain(arguments.client_cert, arguments.client_key)
    return context


def headers(arguments: argparse.Namespace) -> dict[str, str]:
    """Give the credentials that go with each request; the token is read from a file, to stand in no process list."""
    if arguments.token_file is None:
        return {}
    return {"Authorization": f"Bearer {arguments.token_file.read_text(encoding='ascii').strip()}"}


def _add_shape(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--rate", type=float, default=200.0)
    group.add_argument("--duration", type=float, default=60.0, help="of the steady state, which is judged")
    group.add_argument("--warm-up", type=float, default=5.0)
    group.add_argument("--spike", type=float, default=0.0, metavar="RATE", help="then the rate as before, judged")
    group.add_argument("--spike-seconds", type=float, default=10.0)
    group.add_argument("--soak", type=float, default=0.0, metavar="SECONDS")
    group.add_argument("--ramp-to", type=float, default=0.0, metavar="RATE", help="steps up to it, to find the knee")
    group.add_argument("--ramp-steps", type=int, default=8)
    group.add_argument("--ramp-step-seconds", type=float, default=10.0)


def _add_deployed(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--url", help="of the HTTP entrance: https://signer.example")
    group.add_argument("--ca", type=Path, help="PEM; of the service's certificate")
    group.add_argument("--client-cert", type=Path, help="PEM; for mutual TLS")
    group.add_argument("--client-key", type=Path)
    group.add_argument("--token-file", type=Path, help="a bearer token")
    group.add_argument("--inbound-url")
    group.add_argument("--outbound-url")
    group.add_argument("--aws-endpoint-url", help="where it is not AWS's own")
    group.add_argument("--public-key", type=Path, help="PEM, or a JWKS as /.well-known/jwks.json gives it")
    group.add_argument("--kid", help="which of the JWKS, where it has more than one")
