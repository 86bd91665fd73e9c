"""The demo: one good batch and one bad one go in; everything that must come out of it is looked for and checked."""

import json
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from signer.audit.verification import verify_directory
from signer.demo.stack import Stack
from signer.errors import UnavailableError
from signer.verification import read_public_keys, verify_document

_ROOT: Final = Path(__file__).resolve().parents[2]
_RECEIVE_TIMEOUT_S: Final = 60.0
_STAGES: Final = {
    "admission": "waiting for a worker",
    "ledger": "claim and complete, two durable commits",
    "pool_wait": "waiting for a session",
    "hsm_sign": "C_SignInit + C_Sign, per signature",
    "verify": "checking every signature",
    "audit": "hash-chained record, fsync",
    "forward": "handing over to the outbound queue",
    "total": "from receive to delete",
}


@dataclass(slots=True)
class Story:
    """What the demo shows, and whether all of it held."""

    stack: Stack
    console: Console
    held: bool = True

    def check(self, claim: str, *, holds: bool, detail: str = "") -> None:
        """Print one claim with its proof."""
        self.held = self.held and holds
        mark = "[bold green]✓[/]" if holds else "[bold red]✗[/]"
        self.console.print(f" {mark} {claim}" + (f" [dim]{detail}[/]" if detail else ""), highlight=False)

    def tell(self) -> None:
        """Run every scene."""
        self.sign_a_batch()
        self.sign_over_http()
        self.quarantine_a_bad_batch()
        self.verify_the_audit_chain()
        self.show_where_the_time_went()

    def sign_a_batch(self) -> None:
        """SQS in, SQS out; then check what came out with nothing but the public key."""
        self._scene("A settlement batch goes in, a signed batch comes out")
        sent = (_ROOT / "examples" / "settlement-batch.json").read_text(encoding="utf-8")
        self._send(sent)
        body = self._receive("outbound")["Body"]
        signed_batch = self.stack.directory / "signed-batch.json"
        signed_batch.write_text(body, encoding="utf-8")
        public_key = self.stack.directory / "public-key.pem"
        public_key.write_bytes(self._get("/v1/keys/settlement/public-key"))
        results = verify_document(body.encode(), read_public_keys([public_key.read_bytes()]))
        document, original = json.loads(body), json.loads(sent)
        unsigned = [{k: v for k, v in item.items() if k != "signature"} for item in document["transactions"]]
        valid = sum(result.problem is None for result in results)
        self.check(
            f"{valid} of {len(original['transactions'])} transactions signed, every signature verifies",
            holds=valid == len(original["transactions"]),
            detail="offline, public key only",
        )
        self.check("content and order are exactly as sent", holds=unsigned == original["transactions"])
        self._show_signature(document["transactions"][0])

    def sign_over_http(self) -> None:
        """The same core through the other entrance, twice: the second answer is a replay."""
        self._scene("One transaction over HTTP, and the same one again")
        message = {"amount": "99.50", "currency": "EUR", "creditor": "NL91ABNA0417164300"}
        request = {"key": "settlement", "transaction_id": "DEMO-HTTP-1", "message": message}
        (first, _), (again, replayed) = self._post("/v1/sign", request), self._post("/v1/sign", request)
        audit_id = json.loads(first)["signature"]["audit_id"]
        self.check("signed synchronously", holds=bool(audit_id), detail=audit_id)
        self.check(
            "asked again, the very same answer came back: nothing was signed twice",
            holds=replayed and again == first,
        )

    def quarantine_a_bad_batch(self) -> None:
        """A batch that can never be signed is put aside whole, with a reason for each transaction."""
        self._scene("A bad batch is put aside, whole and with its reasons")
        sent = (_ROOT / "examples" / "bad-batch.json").read_text(encoding="utf-8")
        self._send(sent)
        message = self._receive("quarantine")
        reasons = json.loads(message["MessageAttributes"]["quarantine"]["StringValue"])
        self.check("body unchanged in quarantine", holds=message["Body"] == sent)
        table = Table("#", "transaction", "code", box=None, header_style="dim", padding=(0, 2, 0, 3))
        for reason in reasons["transactions"]:
            table.add_row(str(reason["index"]), reason["transaction_id"] or "-", reason["code"])
        self.console.print(table)
        expected = ["batch_abandoned", "invalid_base64", "duplicate_transaction_id", "duplicate_transaction_id"]
        codes = [reason["code"] for reason in reasons["transactions"]]
        self.check("every transaction has its reason", holds=codes == [*expected, "invalid_transaction"])

    def verify_the_audit_chain(self) -> None:
        """The record of everything above, unbroken on disk."""
        self._scene("What signed this? The audit chain knows")
        verification = verify_directory(self.stack.audit_directory)
        self.check(
            "the audit chain is unbroken",
            holds=verification.ok,
            detail=f"{verification.records} records, head {verification.head_hash[:16]}…",
        )

    def show_where_the_time_went(self) -> None:
        """Mean time of every stage, from the service's own metrics."""
        self._scene("Where the time went")
        sums = _stage_sums(self._get("/metrics").decode())
        table = Table("stage", "SQS batch", "HTTP", "", box=None, header_style="dim", padding=(0, 2, 0, 1))
        for stage, meaning in _STAGES.items():
            cells = [_mean(sums, f"{entrance}/{stage}") for entrance in ("sqs", "http")]
            table.add_row(stage, *cells, f"[dim]{meaning}[/]")
        self.console.print(table)
        self.check("the service measured itself", holds="sqs/total" in sums)

    def _scene(self, title: str) -> None:
        self.console.print(f"\n[bold cyan]{title}[/]")

    def _show_signature(self, transaction: dict[str, Any]) -> None:
        signature = {**transaction["signature"], "value": transaction["signature"]["value"][:44] + "…"}
        title = f"{transaction['transaction_id']} [dim]signature[/]"
        lines = "\n".join(f"[dim]{name:<16}[/]{value}" for name, value in signature.items())
        self.console.print(Panel(lines, title=title, title_align="left", border_style="dim", expand=False))

    def _send(self, body: str) -> None:
        self.stack.sqs.send_message(QueueUrl=self.stack.queues["inbound"], MessageBody=body)

    def _receive(self, queue: str) -> dict[str, Any]:
        url = self.stack.queues[queue]
        until_s = time.monotonic() + _RECEIVE_TIMEOUT_S
        while time.monotonic() < until_s:
            answer = self.stack.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=2, MessageAttributeNames=["All"])
            for message in answer.get("Messages", []):
                self.stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                return dict(message)
        msg = f"nothing arrived in the {queue} queue; see {self.stack.directory}/serve.log"
        raise UnavailableError(msg)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.stack.http_url + path, timeout=10) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())

    def _post(self, path: str, body: dict[str, Any]) -> tuple[bytes, bool]:
        """Give the answer, and whether it was made for an earlier request."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.stack.http_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.read(), "Idempotency-Replayed" in answer.headers


def _stage_sums(metrics: str) -> dict[str, dict[str, float]]:
    """Read `{"entrance/stage": {"sum": seconds, "count": n}}` from the service's own metrics."""
    sums: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics):
        if family.name == "signer_stage_seconds":
            for sample in family.samples:
                name = f"{sample.labels['entrance']}/{sample.labels['stage']}"
                sums.setdefault(name, {})[sample.name.rsplit("_", 1)[-1]] = sample.value
    return sums


def _mean(sums: dict[str, dict[str, float]], name: str) -> str:
    if name not in sums:
        return "-"
    return f"{1000 * sums[name]['sum'] / sums[name]['count']:.2f} ms"
