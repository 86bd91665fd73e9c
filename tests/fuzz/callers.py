"""Who sends requests to the services that schemathesis tests: everybody that the policy lets in, and nobody."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signer.demo.stack import Emulator, Stack, Token, provision
from tests.fuzz.tally import NOBODY
from tests.issuer import CALLER, bound_to
from tests.service.entrance import SPIFFE, People, Site, leaf, site
from tests.service.governed import HTTP, caller, policy
from tests.service.running import until
from tests.unit.policies import replace_file

NAMES: Final = ("loopback", NOBODY, "token", "certificate", "balancer", "bound token")
SERVICES: Final = ("loopback", "site")
HSM_HOME: Final = "token"
"""Directories."""
_AUDITOR: Final = 'roles = ["auditor"]'
_HOUR_S: Final = 3600
# Takes the Authorization header away, and cannot take a certificate, nor a balancer's word: NOBODY has none of them.
_STAYS: Final = ("--exclude-checks", "ignored_auth")


@dataclass(frozen=True)
class Round:
    """Who asks, and how."""

    name: str
    url: str
    health_url: str
    """Where it tells how it is."""
    directory: Path
    """Where it works."""
    context: ssl.SSLContext | None = None
    """What its description is fetched with."""
    arguments: tuple[str, ...] = ()


@contextmanager
def rounds(directory: Path) -> Iterator[list[Round]]:
    """Run two services for the block: one for whoever is on this machine, one that wants to know who it is."""
    directory.mkdir(exist_ok=True)
    with ExitStack() as closing_all:
        emulator = closing_all.enter_context(closing(Emulator(directory)))
        token = provision(directory / HSM_HOME)
        stack = _open_to_this_machine(directory / SERVICES[0], emulator, token)
        closing_all.callback(stack.start().terminate)
        environment = {
            "SIGNER_HTTP__TLS__CLIENT_CERTIFICATE": "optional",
            "SIGNER_HTTP__PROXY__NETWORKS": '["127.0.0.1/32"]',  # schemathesis is the balancer, too
        }
        entrance = site(directory / SERVICES[1], emulator, token, token.module, People(), **environment)
        running = closing_all.enter_context(entrance)
        _let_in(running)
        loopback = Round("loopback", stack.http_url, stack.http_url, stack.directory)
        yield [loopback, *_with_credentials(running)]


def _let_in(running: Site) -> None:
    """Let requests get as far as they can: what the schema takes, no rule of the policy refuses."""
    named = (_entitled(name, keys=("settlement", "killed")) for name in (SPIFFE, CALLER))
    replace_file(running.directory / "policy.toml", policy(*named))
    until(lambda: any(record["operation"] == "policy.changed" for record in running.records()), "the other policy")


def _entitled(name: str, keys: tuple[str, ...] = ("settlement",)) -> str:
    return caller(name, limits=_AUDITOR, keys=keys, require_transaction_id=False)


def _with_credentials(running: Site) -> Iterator[Round]:
    directory, people = running.directory, running.people
    (directory / "root.pem").write_bytes(people.root.pem)
    trust = ("--tls-verify", str(directory / "root.pem"))
    certificate, key = people.honest.write(directory, "honest")
    shown = ("--request-cert", str(certificate), "--request-cert-key", str(key))
    ends = running.issuer.claims()["iat"] + _HOUR_S
    header, value = leaf(people.honest)
    credentials = {
        NOBODY: (),
        "token": _bearer(running.issuer.token(exp=ends)),
        "certificate": (*shown, *_STAYS),
        "balancer": ("--header", f"{header}: {value}", *_STAYS),
        "bound token": (*shown, *_bearer(running.issuer.token(exp=ends, cnf=bound_to(people.honest))), *_STAYS),
    }
    for name, arguments in credentials.items():
        yield Round(
            name,
            f"https://localhost:{running.port}",
            running.stack.http_url,
            directory,
            running.context(None),
            (*trust, *arguments),
        )


def _bearer(token: str) -> tuple[str, str]:
    return "--header", f"Authorization: Bearer {token}"


def _open_to_this_machine(directory: Path, emulator: Emulator, token: Token) -> Stack:
    """Make a service that takes whoever comes for one caller, to whom everything is granted."""
    directory.mkdir()
    stack = Stack(directory, emulator, token)
    kept = [line for line in stack.config.read_text(encoding="utf-8").splitlines() if not line.startswith("callers = ")]
    stack.config.write_text("\n".join(kept), encoding="utf-8")
    file = directory / "policy.toml"
    file.write_text(policy(_entitled(HTTP)), encoding="utf-8")
    stack.environment["SIGNER_POLICY__FILE"] = str(file)
    return stack
