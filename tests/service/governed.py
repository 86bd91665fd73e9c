"""Services under a policy file that a test writes, and the commands that people run on it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from signer.demo.processes import Program
from signer.demo.stack import Emulator, Stack, Token
from tests.service.running import PATIENCE_S, audit_records, until
from tests.unit.policies import replace_file

HTTP = "http:loopback"
BOTH = ["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]


def caller(name: str, *, limits: str = "", keys: Sequence[str] = ("settlement",), **grant: Any) -> str:
    """One caller of a policy file; without a `grant`, everything with each key but omitting the transaction id."""
    granted = {"algorithms": BOTH, "content": ["message", "payload", "digest"], **grant}
    members = [f"{member} = {json.dumps(value)}" for member, value in granted.items()]
    tables = [line for key in keys for line in (f"[callers.keys.{key}]", *members)]
    return "\n".join(["[[callers]]", f'name = "{name}"', limits, *tables])


def policy(*callers: str) -> str:
    """A policy file."""
    return "\n".join(['schema = "signer-policy/1"', *callers])


def queue_of(stack: Stack) -> str:
    """The name that the inbound queue has as a caller."""
    return f"queue:{stack.queues['inbound'].rsplit('/', 1)[-1]}"


@dataclass
class Governed:
    """A service under the policy file, which others may share."""

    stack: Stack
    file: Path
    process: Program | None = None

    def write(self, *callers: str) -> None:
        """Put another policy in the place of the one before, in one step, and wait until it is in force."""
        replace_file(self.file, policy(*callers))

    def start(self) -> None:
        """Run it."""
        self.process = self.stack.start()

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None:
            self.process.terminate()
            self.process = None

    def ask(self, transaction_id: str | None = "T", **changes: Any) -> httpx.Response:
        """Ask for a signature."""
        document = {"key": "settlement", "transaction_id": transaction_id, "message": {"amount": "1.00"}, **changes}
        body = {name: value for name, value in document.items() if value is not None}
        return httpx.post(f"{self.stack.http_url}/v1/sign", json=body, timeout=PATIENCE_S)

    def recorded(self, operation: str) -> list[dict[str, Any]]:
        """Its audit records of one kind."""
        return [record for record in audit_records(self.stack) if record["operation"] == operation]

    def wait_for(self, operation: str, count: int = 1) -> dict[str, Any]:
        """Give the latest of so many records."""
        until(lambda: len(self.recorded(operation)) >= count, f"{count} records of {operation}")
        return self.recorded(operation)[count - 1]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `signer policy` with the service's settings."""
        return signer_policy(*arguments, "--config", str(self.stack.config), environment=self.stack.environment)


def signer_policy(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `signer policy`."""
    command = [sys.executable, "-m", "signer", "policy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def governed(directory: Path, emulator: Emulator, token: Token, file: Path) -> Governed:
    """Settings that leave it to the policy file who may do what."""
    directory.mkdir()
    stack = Stack(directory, emulator, token)
    lines = stack.config.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("callers = ")]
    stack.config.write_text("\n".join([*kept, "[policy]", f'file = "{file}"', ""]), encoding="utf-8")
    stack.environment |= {"SIGNER_SQS__WAIT_S": "1", "SIGNER_SQS__RETRY_AFTER_S": "1"}
    return Governed(stack, file)


@contextmanager
def all_running(*services: Governed) -> Iterator[None]:
    """Run them all for the block."""
    with ExitStack() as stack:
        for service in services:
            stack.callback(service.stop)
            service.start()
        yield
