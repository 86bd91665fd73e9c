"""Sends hostile messages to a service that runs, through a real queue, and accounts for each of them."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx

from signer.demo.processes import Program
from signer.demo.stack import Stack
from signer.verification import read_public_keys, verify_document
from tests.hostile.hostile import Hostile
from tests.hostile.placing import Places

_PATIENCE_S: Final = 90.0
_MOST_UNDER_WAY: Final = 200
_MOST_IN_ONE_CALL_BYTES: Final = 200_000
_MOST_IN_ONE_CALL: Final = 10
_SETTINGS: Final = {"SIGNER_SQS__RETRY_AFTER_S": "0", "SIGNER_SQS__WAIT_S": "1"}


@dataclass(slots=True)
class Account:
    """What became of what was sent."""

    sent: dict[str, str] = field(default_factory=dict)
    """The kind of each message, by message id."""
    codes: dict[str, str] = field(default_factory=dict)
    """Why a message is in quarantine, by message id."""
    signed: int = 0
    forwarded: set[str] = field(default_factory=set)
    """The messages that the service says it forwarded, by message id."""
    wrong: list[str] = field(default_factory=list)
    """What must not be."""
    resident_mib: list[float] = field(default_factory=list)
    """Of the service: at first, and after each message or so."""

    @property
    def under_way(self) -> int:
        """How many messages have not come out yet, signed or set aside."""
        return len(self.sent) - len(self.codes) - self.signed

    @property
    def by_code(self) -> Counter[str]:
        """How many ended in which way."""
        return Counter(self.codes.values()) + Counter(signed=self.signed)


class Sender:
    """Keeps a bounded number of hostile messages under way."""

    def __init__(self, stack: Stack, service: Program) -> None:
        self._stack = stack
        self._service = service
        self._places = Places(stack.s3, stack.bucket)
        self._keys = read_public_keys([httpx.get(f"{stack.http_url}/v1/keys/settlement/public-key").content])
        self._log = Log(stack.directory / "serve.log")
        self.account = Account(resident_mib=[resident_mib(service.pid)])

    def send_all(self, hostiles: Iterable[Hostile]) -> Account:
        """Send them, and wait until each has come out; gives the account, and what is wrong with it."""
        remaining = iter(hostiles)
        while (room := _MOST_UNDER_WAY - self.account.under_way) > 0:
            portion = list(islice(remaining, min(room, _MOST_IN_ONE_CALL)))
            if not portion:
                break
            self._send(portion)
            if self.account.under_way > _MOST_UNDER_WAY // 2:
                self._take_until(_MOST_UNDER_WAY // 2)
        self._take_until(0)
        self._judge()
        return self.account

    def _send(self, portion: list[Hostile]) -> None:
        entries: list[Any] = []
        for index, hostile in enumerate(portion):
            placed = self._places.place(hostile)
            entry = {"Id": str(index), "MessageBody": placed.body, "MessageAttributes": placed.attributes}
            if sum(len(each["MessageBody"]) for each in [*entries, entry]) > _MOST_IN_ONE_CALL_BYTES and entries:
                self._send_entries(entries, portion)
                entries = []
            entries.append(entry)
        self._send_entries(entries, portion)

    def _send_entries(self, entries: list[Any], portion: list[Hostile]) -> None:
        answer = self._stack.sqs.send_message_batch(QueueUrl=self._stack.queues["inbound"], Entries=entries)
        assert not answer.get("Failed"), answer["Failed"]
        self.account.sent |= {each["MessageId"]: portion[int(each["Id"])].kind for each in answer["Successful"]}

    def _take_until(self, most: int) -> None:
        until_s = time.monotonic() + _PATIENCE_S
        while self.account.under_way > most:
            if self._take_quarantined() + self._take_signed():
                until_s = time.monotonic() + _PATIENCE_S
                self.account.resident_mib.append(resident_mib(self._service.pid))
            assert time.monotonic() < until_s, f"{self.account.under_way} messages do not come out"

    def _take_quarantined(self) -> int:
        messages = self._take("quarantine")
        for message in messages:
            reasons = json.loads(message["MessageAttributes"]["quarantine"]["StringValue"])
            self.account.codes[reasons["message_id"]] = reasons["code"]
        return len(messages)

    def _take_signed(self) -> int:
        messages = self._take("outbound")
        for message in messages:
            body = message["Body"].encode()
            if "ExtendedPayloadSize" in message["MessageAttributes"]:
                place = json.loads(body)[1]
                found = self._stack.s3.get_object(Bucket=place["s3BucketName"], Key=place["s3Key"])
                body = found["Body"].read()
            problems = [item.problem for item in verify_document(body, self._keys) if item.problem is not None]
            self.account.wrong += [f"signed, and not valid: {problem}" for problem in problems]
            self.account.signed += 1
        return len(messages)

    def _take(self, role: str) -> list[Any]:
        url = self._stack.queues[role]
        answer = self._stack.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        messages = answer.get("Messages", [])
        if messages:
            entries: Any = [{"Id": str(i), "ReceiptHandle": each["ReceiptHandle"]} for i, each in enumerate(messages)]
            self._stack.sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        else:
            time.sleep(0.01)
        return list(messages)

    def _judge(self) -> None:
        account, until_s = self.account, time.monotonic() + _PATIENCE_S
        self._read_log()
        # What came out is told of a moment later: once its message is deleted.
        while len(account.forwarded) < account.signed and time.monotonic() < until_s:
            time.sleep(0.01)
            self._read_log()
        ended = account.forwarded | account.codes.keys()
        account.wrong += [f"{account.sent[each]}: neither signed nor set aside" for each in account.sent.keys() - ended]
        if len(account.forwarded) != account.signed or account.forwarded & account.codes.keys():
            account.wrong.append("what came out is not what the service says it forwarded")
        if httpx.get(f"{self._stack.http_url}/readyz").is_error:
            account.wrong.append("the service is not ready any more")

    def _read_log(self) -> None:
        for entry in self._log.more():
            self.account.wrong += unexplained(entry)
            if entry["event"] == "batch.forwarded":
                self.account.forwarded.add(entry["message_id"])


class Log:
    """What a service writes, read as it grows: of a hundred thousand messages nobody reads every line each time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def more(self) -> Iterator[dict[str, Any]]:
        """Give the entries since the last time; a line that is none of its own is an event without a level."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if line.endswith(b"\n"):
                    self._read_bytes += len(line)
                    yield json.loads(line) if line.startswith(b"{") else {"event": line.decode().strip()}


def unexplained(entry: dict[str, Any]) -> list[str]:
    """Tell if the service said what nobody can explain: errors, tracebacks, and lines that are none of its own."""
    if entry.get("level") in {"error", "critical", None} or {"traceback", "error_type"} & entry.keys():
        return [f"the service said: {json.dumps(entry)[:500]}"]
    return []


def resident_mib(pid: int, figure: str = "VmRSS") -> float:
    """Give the resident memory of a process now, or at most so far (`VmHWM`)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith(f"{figure}:"))
    return int(line.split()[1]) / 1024


def settings() -> dict[str, str]:
    """Give the environment of the service: what may come right is tried again at once."""
    return dict(_SETTINGS)
