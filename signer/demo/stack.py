"""Everything the service needs around it, in one directory: used by the demo, by `make run` and by the tests."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import boto3

from signer.demo.processes import Program, free_port
from signer.errors import ConfigurationError
from signer.ledger.items import KEY_ALIAS, TRANSACTION_ID, TTL
from signer.ledger.table import DIGEST_INDEX, KEY_SCHEMA

if TYPE_CHECKING:
    # Packages of types only, absent at run time.
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeDefinitionTypeDef, GlobalSecondaryIndexTypeDef
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

KEY_LABEL: Final = "demo-settlement-key-2028"
_QUEUES: Final = ("inbound", "outbound", "quarantine")
_ROOT: Final = Path(__file__).resolve().parents[2]
# What the emulator wants to see; it checks none of it.
_REGION: Final = "eu-central-1"
_DIGEST_ATTRIBUTES: Final["tuple[AttributeDefinitionTypeDef, ...]"] = (
    {"AttributeName": "digest", "AttributeType": "B"},
)
_DIGEST_INDEXES: Final["tuple[GlobalSecondaryIndexTypeDef, ...]"] = (
    {
        "IndexName": DIGEST_INDEX,
        "KeySchema": [{"AttributeName": "digest", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    },
)
_AWS: Final = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_REGION": _REGION}


@dataclass(frozen=True, slots=True)
class Token:
    """A SoftHSM token made by softhsm/provision.py."""

    module: Path
    conf: Path
    label: str
    pin_file: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the token."""
        return {"SOFTHSM2_CONF": str(self.conf)}


def provision(home: Path, label: str = "signer-demo", keys: tuple[str, ...] = (KEY_LABEL,)) -> Token:
    """Make the token and its keys, or find them made; raises `ConfigurationError` with what went wrong."""
    script = _ROOT / "softhsm" / "provision.py"
    if not script.is_file():
        msg = "the demo runs from a source checkout: it needs softhsm/provision.py"
        raise ConfigurationError(msg)
    command = [sys.executable, str(script), "--home", str(home), "--token", label]
    command += [argument for key in keys for argument in ("--key", key)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode:
        msg = f"softhsm/provision.py failed: {done.stderr.strip()}"
        raise ConfigurationError(msg)
    made = json.loads(done.stdout)
    return Token(Path(made["module"]), Path(made["conf"]), made["token"], Path(made["pin_file"]))


class Emulator:
    """An AWS endpoint on loopback, with nothing in it but queues, buckets and tables."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        services = {"SERVICES": "sqs,s3,dynamodb", "IOT_MTLS_ENABLED": "0"}
        bounds = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), **services}
        command = [sys.executable, "-m", "ministack"]
        self._program = Program(command, {**os.environ, **bounds}, directory / "emulator.log")
        try:
            self._program.wait_for(f"{self.url}/_ministack/health")
        except BaseException:
            self._program.kill()
            raise
        session = boto3.Session(
            region_name=_REGION,
            aws_access_key_id=_AWS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_AWS["AWS_SECRET_ACCESS_KEY"],
        )
        self.sqs: SQSClient = session.client("sqs", endpoint_url=self.url)
        self.s3: S3Client = session.client("s3", endpoint_url=self.url)
        self.dynamodb: DynamoDBClient = session.client("dynamodb", endpoint_url=self.url)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._program.pid

    def create_queues(self, prefix: str) -> dict[str, str]:
        """Create the three queues and give their URLs by role."""
        return {role: self.sqs.create_queue(QueueName=f"{prefix}-{role}")["QueueUrl"] for role in _QUEUES}

    def create_bucket(self, name: str) -> str:
        """Create a bucket, and give its name."""
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": _REGION})
        return name

    def create_table(self, name: str, *, digest_index: bool = True) -> str:
        """Create a table for a ledger, and give its name."""
        self.dynamodb.create_table(
            TableName=name,
            KeySchema=KEY_SCHEMA,
            AttributeDefinitions=[
                {"AttributeName": TRANSACTION_ID, "AttributeType": "S"},
                {"AttributeName": KEY_ALIAS, "AttributeType": "S"},
                *(_DIGEST_ATTRIBUTES if digest_index else ()),
            ],
            GlobalSecondaryIndexes=_DIGEST_INDEXES if digest_index else (),
            BillingMode="PAY_PER_REQUEST",
        )
        self.dynamodb.update_time_to_live(
            TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL}
        )
        return name

    def close(self) -> None:
        """End it; its queues and buckets are gone."""
        self._program.terminate()


class Stack:
    """Token, queues and settings in `directory`, over a running emulator; `start` brings the service up.

    Tests change settings through `environment` (`SIGNER_SQS__WAIT_S`, ...), as operators do.
    """

    def __init__(self, directory: Path, emulator: Emulator, token: Token) -> None:
        self.directory = directory
        self.sqs = emulator.sqs
        self.s3 = emulator.s3
        # Other stacks of this endpoint may lie in directories of the same name, and must not share its queues.
        self.queues = emulator.create_queues(f"settlement-{directory.name}-{uuid4().hex[:8]}")
        self.bucket = emulator.create_bucket(f"payloads-{uuid4().hex}")
        self.http_url = f"http://127.0.0.1:{free_port()}"
        self.audit_directory = directory / "audit"
        self.config = directory / "signer.toml"
        self.environment = {**os.environ, **_AWS, **token.environment}
        self.config.write_text(self._settings(emulator.url, token), encoding="utf-8")

    def start(self) -> Program:
        """Start `signer serve` and wait until it is ready to sign."""
        program = self.launch()
        try:
            program.wait_for(f"{self.http_url}/readyz")
        except BaseException:
            program.kill()
            raise
        return program

    def launch(self) -> Program:
        """Start `signer serve` and wait for nothing."""
        command = [sys.executable, "-m", "signer", "serve", "--config", str(self.config)]
        return Program(command, self.environment, self.directory / "serve.log")

    def _settings(self, endpoint_url: str, token: Token) -> str:
        caller = f"queue:{self.queues['inbound'].rsplit('/', 1)[-1]}"
        return f"""# Settings of the local stack; every one can be overridden by SIGNER_<SECTION>__<NAME>.
[hsm]
module = "{token.module}"
token = "{token.label}"
pin_file = "{token.pin_file}"
production = false
sessions = {os.cpu_count() or 2}

[keys.settlement]
label = "{KEY_LABEL}"
callers = ["{caller}", "http:loopback"]

[ledger]
path = "{self.directory}/ledger.sqlite3"

[audit]
directory = "{self.audit_directory}"

[sqs]
endpoint_url = "{endpoint_url}"
inbound_url = "{self.queues["inbound"]}"
outbound_url = "{self.queues["outbound"]}"
quarantine_url = "{self.queues["quarantine"]}"
wait_s = 2

[sqs.payloads]
endpoint_url = "{endpoint_url}"
bucket = "{self.bucket}"
accept = ["{self.bucket}/inbound/"]

[http]
port = {self.http_url.rsplit(":", 1)[-1]}
"""


@contextmanager
def running_stack(directory: Path) -> Iterator[tuple[Stack, Program]]:
    """Bring everything up in an empty `directory`, and take it down in reverse order."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as closing:
        token = provision(directory / "token")
        emulator = Emulator(directory)
        closing.callback(emulator.close)
        stack = Stack(directory, emulator, token)
        service = stack.start()
        closing.callback(service.terminate)
        yield stack, service
