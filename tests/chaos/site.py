"""Where a run takes place: queues, bucket, table and token of its own, and a proxy before each service process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import uuid4

import boto3

from signer.demo.processes import free_port
from signer.demo.stack import KEY_LABEL, Emulator, Token, provision
from tests.chaos.proxy import Loop, Proxy
from tests.chaos.tokens import TokenCopy

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Ledger = Literal["sqlite", "dynamodb"]

ROOT: Final = Path(__file__).resolve().parents[2]
LARGEST_MESSAGE_BYTES: Final = 8192
"""What the outbound queue takes: so a batch need not be large to go through S3."""
VISIBILITY_S: Final = 5
LEASE_S: Final = 4
_SIGNING_TIMEOUT_S: Final = 3
# Kills count as receives, and no batch shall be set aside for having been there too often.
_MOST_RECEIVES: Final = 1000
_AWS: Final = {"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_REGION": "eu-central-1"}


@dataclass(frozen=True, slots=True)
class Service:
    """One service process: what it is started with, and what it leaves."""

    name: str
    config: Path
    http_url: str
    audit_directory: Path
    log: Path
    proxy: Proxy
    token: TokenCopy
    environment: dict[str, str]
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start it, and wait for nothing; the process before it must have ended."""
        self.token.renew()
        command = [sys.executable, "-m", "signer", "serve", "--config", str(self.config)]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env={**self.environment, **self.token.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Leave no process behind, however a run ended."""
        for process in self._started:
            process.kill()
            process.wait()


@dataclass(slots=True)
class Site:
    """What all processes of a run share."""

    directory: Path
    emulator: Emulator
    dynamodb: "DynamoDBClient"
    loop: Loop
    """Where the proxies live."""
    token: Token
    ledger: Ledger
    fifo: bool
    code: Path
    """The source tree that is run: this one, or a copy of it with a guard taken out."""
    extra: dict[str, str]
    """Environment of the service: settings that a test adds."""
    queues: dict[str, str] = field(default_factory=dict)
    bucket: str = ""
    table: str = ""
    services: list[Service] = field(default_factory=list)

    @property
    def ledger_path(self) -> Path:
        """Of the SQLite ledger."""
        return self.directory / "ledger.sqlite3"

    def create(self) -> None:
        """Make queues, bucket and table."""
        name, suffix = f"chaos-{uuid4().hex[:8]}", ".fifo" if self.fifo else ""
        kind = {"FifoQueue": "true"} if self.fifo else {}
        sqs = self.emulator.sqs

        def queue(role: str, **attributes: str) -> str:
            wanted: Any = {**kind, **attributes}  # their names are literal types of a stub
            return sqs.create_queue(QueueName=f"{name}-{role}{suffix}", Attributes=wanted)["QueueUrl"]

        dead = queue("dead-letter")
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": _MOST_RECEIVES})
        self.queues = {
            "inbound": queue("inbound", RedrivePolicy=redrive),
            "outbound": queue("outbound", MaximumMessageSize=str(LARGEST_MESSAGE_BYTES)),
            "quarantine": queue("quarantine"),
            "dead-letter": dead,
        }
        self.bucket = self.emulator.create_bucket(name)
        self.table = name
        if self.ledger == "dynamodb":
            self.dynamodb.create_table(
                TableName=name,
                KeySchema=[
                    {"AttributeName": "transaction_id", "KeyType": "HASH"},
                    {"AttributeName": "key_alias", "KeyType": "RANGE"},
                ],
                AttributeDefinitions=[
                    {"AttributeName": "transaction_id", "AttributeType": "S"},
                    {"AttributeName": "key_alias", "AttributeType": "S"},
                ],
                BillingMode="PAY_PER_REQUEST",
            )

    def add_service(self, proxy: Proxy) -> Service:
        """Write the settings of one more process."""
        name = f"service-{len(self.services) + 1}"
        port = free_port()
        service = Service(
            name,
            self.directory / f"{name}.toml",
            f"http://127.0.0.1:{port}",
            self.directory / f"{name}-audit",
            self.directory / f"{name}.log",
            proxy,
            TokenCopy(self.token, self.directory / f"{name}-token"),
            self._environment(),
        )
        service.config.write_text(self._settings(service, port), encoding="utf-8")
        self.services.append(service)
        return service

    def depth(self, role: str) -> int:
        """Count the messages of a queue, hidden ones included."""
        sqs, url = self.emulator.sqs, self.queues[role]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return sum(int(count) for name, count in attributes.items() if name.startswith("ApproximateNumber"))

    def _environment(self) -> dict[str, str]:
        # No setting of whoever runs this; but what stands before SoftHSM in this run stands there for the service, too.
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("SIGNER_") or name.startswith("SIGNER_SHIM_")
        }
        # Not what lies in the current directory, but what `code` says.
        tree = {"PYTHONPATH": str(self.code), "PYTHONSAFEPATH": "1"}
        return {**ours, **_AWS, **tree, **self.extra}

    def _settings(self, service: Service, port: int) -> str:
        caller = f"queue:{self.queues['inbound'].rsplit('/', 1)[-1]}"
        place = {"sqlite": f'path = "{self.ledger_path}"', "dynamodb": self._table_settings(service)}[self.ledger]
        return f"""signing_timeout_s = {_SIGNING_TIMEOUT_S}
drain_timeout_s = 30

[hsm]
module = "{self.token.module}"
token = "{self.token.label}"
pin_file = "{self.token.pin_file}"
production = false

[keys.settlement]
label = "{KEY_LABEL}"
callers = ["{caller}", "http:loopback"]

[keys.payout]
label = "{KEY_LABEL}"

[ledger]
{place}
lease_s = {LEASE_S}

[audit]
directory = "{service.audit_directory}"

[sqs]
endpoint_url = "{service.proxy.url}"
inbound_url = "{self.queues["inbound"]}"
outbound_url = "{self.queues["outbound"]}"
quarantine_url = "{self.queues["quarantine"]}"
wait_s = 1
visibility_timeout_s = {VISIBILITY_S}
retry_after_s = 1
max_message_bytes = {LARGEST_MESSAGE_BYTES}

[sqs.payloads]
endpoint_url = "{service.proxy.url}"
bucket = "{self.bucket}"
accept = ["{self.bucket}/inbound/"]

[http]
port = {port}
"""

    def _table_settings(self, service: Service) -> str:
        return f'backend = "dynamodb"\ntable = "{self.table}"\nendpoint_url = "{service.proxy.url}"'


@contextmanager
def open_site(
    directory: Path,
    ledger: Ledger,
    processes: int,
    *,
    fifo: bool,
    code: Path = ROOT,
    extra: dict[str, str] | None = None,
) -> Iterator[Site]:
    """Bring everything up in an empty `directory`, but no service."""
    with ExitStack() as stack:
        token = provision(directory / "token")
        emulator = stack.enter_context(closing(Emulator(directory)))
        loop = stack.enter_context(closing(Loop()))
        session = boto3.Session("chaos", "chaos", region_name="eu-central-1")
        dynamodb = stack.enter_context(closing(session.client("dynamodb", endpoint_url=emulator.url)))
        site = Site(directory, emulator, dynamodb, loop, token, ledger, fifo, code, extra or {})
        site.create()
        for _ in range(processes):
            site.add_service(stack.enter_context(closing(Proxy(loop, emulator.url))))
        for service in site.services:
            stack.enter_context(closing(service))
        yield site
