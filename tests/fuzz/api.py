"""Schemathesis with all its checks over every endpoint of a real service, with each credential and with none."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from signer.demo.stack import Emulator, Stack, Token, provision
from tests.issuer import CALLER
from tests.service.entrance import SPIFFE, People, Site, site
from tests.service.governed import HTTP, caller, policy
from tests.service.running import until
from tests.unit.policies import replace_file

_CONFIGURATION: Final = Path(__file__).with_name("schemathesis.toml")
_ROOT: Final = Path(__file__).parents[2]
_HOUR_S: Final = 3600


@dataclass(frozen=True)
class Round:
    """Who asks, and how."""

    name: str
    url: str
    arguments: tuple[str, ...] = ()


def run(each: Round, directory: Path, examples: int) -> int:
    """Send about `examples` requests to each operation; gives how many there were, or ends with what was found."""
    report = directory / f"{each.name}.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIGURATION)]
    command += ["run", f"{each.url}/openapi.json", "--checks", "all", "--max-examples", str(examples), *each.arguments]
    command += ["--generation-database", "none", "--report-json-path", str(report)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{each.name}:\n{done.stdout}{done.stderr}")
    found = json.loads(report.read_text(encoding="utf-8"))
    if found["operations"]["tested"] < found["operations"]["total"] or not found["complete"]:
        sys.exit(f"{each.name}: not everything was tested\n{done.stdout}")
    cases: int = found["test_cases"]["generated"]
    return cases


@contextmanager
def rounds(directory: Path) -> Iterator[list[Round]]:
    """Run two services for the block: one for whoever is on this machine, one that wants to know who it is."""
    with ExitStack() as closing_all:
        emulator = closing_all.enter_context(closing(Emulator(directory)))
        token = provision(directory / "token")
        stack = _open_to_this_machine(directory / "loopback", emulator, token)
        closing_all.callback(stack.start().terminate)
        optional = {"SIGNER_HTTP__TLS__CLIENT_CERTIFICATE": "optional"}
        entrance = site(directory / "site", emulator, token, token.module, People(), **optional)
        running = closing_all.enter_context(entrance)
        _let_in(running)
        yield [Round("loopback", stack.http_url), *_with_credentials(running)]


def _let_in(running: Site) -> None:
    """Let requests get as far as they can: what the schema takes, no rule of the policy refuses."""
    named = (caller(name, keys=["settlement", "killed"], require_transaction_id=False) for name in (SPIFFE, CALLER))
    replace_file(running.directory / "policy.toml", policy(*named))
    until(lambda: any(record["operation"] == "policy.changed" for record in running.records()), "the other policy")


def _with_credentials(running: Site) -> Iterator[Round]:
    url, directory = f"https://localhost:{running.port}", running.directory
    (directory / "root.pem").write_bytes(running.people.root.pem)
    trust = ("--tls-verify", str(directory / "root.pem"))
    token = running.issuer.token(exp=running.issuer.claims()["iat"] + _HOUR_S)
    certificate, key = running.people.honest.write(directory, "honest")
    shown = ("--request-cert", str(certificate), "--request-cert-key", str(key))
    yield Round("nobody", url, trust)
    yield Round("token", url, (*trust, "--header", f"Authorization: Bearer {token}"))
    # That check takes credentials away, and cannot take a certificate: "nobody" has none.
    yield Round("certificate", url, (*trust, *shown, "--exclude-checks", "ignored_auth"))


def _open_to_this_machine(directory: Path, emulator: Emulator, token: Token) -> Stack:
    """Make a service that takes whoever comes for one caller, to whom everything is granted."""
    directory.mkdir()
    stack = Stack(directory, emulator, token)
    kept = [line for line in stack.config.read_text(encoding="utf-8").splitlines() if not line.startswith("callers = ")]
    stack.config.write_text("\n".join(kept), encoding="utf-8")
    file = directory / "policy.toml"
    file.write_text(policy(caller(HTTP, limits='roles = ["auditor"]', require_transaction_id=False)), encoding="utf-8")
    stack.environment["SIGNER_POLICY__FILE"] = str(file)
    return stack


def main() -> None:
    """Go through the rounds, and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--examples", type=int, default=500, help="requests to each operation, about")
    examples = arguments.parse_args().examples
    total = 0
    with TemporaryDirectory(prefix="schemathesis") as directory, rounds(Path(directory)) as found:
        for each in found:
            cases = run(each, Path(directory), examples)
            total += cases
            print(f"{each.name:12} {cases:>7,}", flush=True)  # noqa: T201
    print(f"{total:,} requests, nothing found")  # noqa: T201


if __name__ == "__main__":
    main()
