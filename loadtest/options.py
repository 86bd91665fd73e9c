"""The command line of the load test."""

import argparse
from pathlib import Path
from typing import Final

from loadtest.messages import ALIAS
from loadtest.objectives import MOST_LAG_MS, parse_objectives
from loadtest.schedule import Shape

OBJECTIVES: Final = {"http": "p99=100ms", "sqs": "p99=1s"}
_DESCRIPTION: Final = """Holds a rate at one entrance in open loop, and proves every signature that comes out.

Without --url or --inbound-url it brings up a service of its own over an HSM module that takes 5-10 ms.

Exit status: 0 all objectives met and everything proven; 1 not; 2 there is nothing that could be tested; 3 the generator
itself fell behind, so that the figures do not count; 130 or 143 ended early by a signal.
"""


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=sorted(OBJECTIVES), required=True)
    parser.add_argument(
        "--objective", action="append", metavar="p99=100ms", help="p50, p90, p99, p99.9, max in ms or s; errors=0"
    )
    parser.add_argument("--most-lag-ms", type=float, default=MOST_LAG_MS, help="how late the generator may be, p99")
    parser.add_argument("--batch", type=int, default=25, help="transactions of a settlement batch")
    parser.add_argument("--message-bytes", type=int, default=250)
    parser.add_argument("--reports", type=Path, default=Path(".local/reports"))
    _add_phases(parser.add_argument_group("phases, in transactions a second and seconds"))
    _add_local(parser.add_argument_group("a service of its own"))
    _add_deployed(parser.add_argument_group("a service that runs already"))
    options = parser.parse_args(words)
    try:
        options.objectives = parse_objectives(options.objective or [OBJECTIVES[options.target]])
    except ValueError as error:
        parser.error(str(error))
    return options


def shape(options: argparse.Namespace) -> Shape:
    """Give what was asked for."""
    return Shape(
        rate=options.rate,
        steady_s=options.duration,
        warm_up_s=options.warm_up,
        spike_rate=options.spike,
        spike_s=options.spike_seconds,
        soak_s=options.soak,
        ramp_to=options.ramp,
        ramp_steps=options.ramp_steps,
        ramp_step_s=options.ramp_seconds,
    )


def _add_phases(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--rate", type=float, default=200.0)
    group.add_argument("--poisson", action="store_true", help="arrivals by chance, not even ones")
    group.add_argument("--seed", type=int, default=1, help="of that chance")
    group.add_argument("--duration", type=float, default=60.0, help="of the steady state, which is judged")
    group.add_argument("--warm-up", type=float, default=5.0)
    group.add_argument("--spike", type=float, default=0.0, metavar="RATE", help="then the rate as before, judged")
    group.add_argument("--spike-seconds", type=float, default=10.0)
    group.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="judged; the report has the memory")
    group.add_argument("--ramp", type=float, default=0.0, metavar="RATE", help="steps up to it, to find the knee")
    group.add_argument("--ramp-steps", type=int, default=8)
    group.add_argument("--ramp-seconds", type=float, default=10.0, help="of each step")


def _add_local(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--sessions", type=int, default=64, help="of the HSM")
    group.add_argument(
        "--replay",
        action="store_true",
        help="SoftHSM signs each of 500 messages once: an HSM that takes its 5-10 ms, but no CPU of this machine",
    )
    group.add_argument("--directory", type=Path, help="must be new; its ledger, audit log and logs stay there")


def _add_deployed(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--url", help="of the HTTP entrance: https://signer.example")
    group.add_argument("--ca", type=Path, help="PEM of who issued its certificate, if not a public authority")
    group.add_argument("--client-cert", type=Path, help="PEM, for mutual TLS")
    group.add_argument("--client-key", type=Path, help="PEM, if it is not in the same file")
    group.add_argument("--token-file", type=Path, help="has a bearer token, which is to stand in no process list")
    group.add_argument("--inbound-url", help="queue that the service takes from")
    group.add_argument("--outbound-url", help="queue that it puts to; nobody else may take from it")
    group.add_argument("--aws-endpoint-url", help="where it is not AWS's own")
    group.add_argument("--public-key", type=Path, help="PEM, or a JWKS as /.well-known/jwks.json gives it")
    group.add_argument("--kid", help="which of the JWKS, where it has more than one")
    group.add_argument("--key", default=ALIAS, help="alias of the key to sign with")
