"""The service with every way to prove who one is, over SoftHSM behind the shim, and a client for it without manners."""

import http.client
import json
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from signer.demo.processes import Program, free_port
from signer.demo.stack import KEY_LABEL, Emulator, Stack, Token
from signer.policy_kills import KillFile, Target
from signer.settings import kill_file_beside
from softhsm.shim.client import LIBRARY, Shim
from tests.issuer import AUDIENCE, CALLER, ISSUER, Issuer
from tests.pki import DAY, SERVER, Authority, Holder, client_context, dns, server_certificate, uri
from tests.service.governed import caller, policy, queue_of
from tests.service.running import audit_records
from tests.unit.policies import KILL

SPIFFE = "spiffe://bank.example/settlement"
SOMEBODY = ("narrow", "checker", "limited", "paced_dry", "paced_batch", "paced_verify", "killed", "auditor", "ousted")
NARROW, CHECKER, *LIMITED, KILLED, AUDITOR, OUSTED = (f"spiffe://bank.example/{name}" for name in SOMEBODY)
BALANCER = "127.0.0.7"
"""The one address whose load balancer headers are believed."""
PAYLOAD = "canary-payload-4711"
Header = tuple[str, str]


@dataclass(frozen=True)
class Answer:
    """What came back: nothing at all where there was no request."""

    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    headers: Any = None
    body: bytes = b""
    source: str = ""
    """Which address asked."""
    holder: Holder | None = None
    """Whose certificate was shown."""


@dataclass
class People:
    """Who holds which certificate."""

    root: Authority = field(default_factory=lambda: Authority("Root"))
    stranger_root: Authority = field(default_factory=lambda: Authority("Stranger"))

    def __post_init__(self) -> None:
        self.middle = Authority("Middle", self.root)
        self.honest = self.middle.issue("settlement", [uri(SPIFFE)])
        self.other = self.middle.issue("other", [uri("spiffe://bank.example/other")])
        self.known = {name: self.middle.issue("somebody", [uri(f"spiffe://bank.example/{name}")]) for name in SOMEBODY}
        self.narrow, self.limited = self.known["narrow"], self.known["limited"]
        self.killed, self.auditor = self.known["killed"], self.known["auditor"]
        self.dns_only = self.root.issue("x", [dns("settlement.bank.example")])
        self.subject_only = self.root.issue("settlement")
        self.revoked = self.middle.issue("revoked", [uri(SPIFFE)])
        self.expired = self.middle.issue("expired", [uri(SPIFFE)], starts=-3 * DAY, ends=-DAY)
        self.early = self.middle.issue("early", [uri(SPIFFE)], starts=DAY, ends=2 * DAY)
        self.stranger = self.stranger_root.issue("settlement", [uri(SPIFFE)])
        self.namesake = Authority("Root").issue("settlement", [uri(SPIFFE)])
        self.server = self.middle.issue("server", [uri(SPIFFE)], purpose=SERVER)
        self.two_ids = self.middle.issue("two", [uri(SPIFFE), uri("spiffe://bank.example/other")])
        self.relative_id = self.middle.issue("relative", [uri("spiffe://bank.example/../settlement")])
        self.wildcard = self.middle.issue("wildcard", [dns("*.bank.example")])
        self.nobody = self.middle.issue("", [uri("https://bank.example/settlement")])

    def lists(self, *revoked: Holder) -> bytes:
        """The revocation lists of both authorities."""
        return self.root.crl() + self.middle.crl(*revoked)


@dataclass
class Site:
    """One service."""

    people: People
    issuer: Issuer
    stack: Stack
    shim: Shim
    directory: Path
    port: int
    process: Program
    sent: set[str] = field(default_factory=set)
    """Every value of a header that holds a secret."""
    heard: list[bytes] = field(default_factory=list)
    """Every answer, with its headers."""

    def context(self, holder: Holder | None) -> ssl.SSLContext:
        """What a client connects with that shows the certificate of `holder`."""
        return client_context(self.people.root, self.directory, holder)

    def ask(
        self,
        holder: Holder | None = None,
        headers: Sequence[Header] = (),
        *,
        source: str = "127.0.0.1",
        method: str = "POST",
        target: str = "/v1/sign",
        context: ssl.SSLContext | None = None,
        **changes: Any,
    ) -> Answer:
        """Ask for a signature on a connection of its own, with exactly these headers beside the necessary ones.

        `changes` go into the document, and a member that is None out of it; what is got by GET has none. So many
        octets of the body as `lacking` says never come.
        """
        lacking = changes.pop("lacking", 0)
        document = {"key": "settlement", "transaction_id": "TXN-1", "message": {"amount": PAYLOAD}, **changes}
        self.sent.update(value for name, value in headers if name == "Authorization")
        self.sent.add(target.replace("=", " "))  # a token may stand there too
        asked = {name: value for name, value in document.items() if value is not None}
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=20, context=context or self.context(holder), source_address=(source, 0)
        )
        try:
            answer = _exchange(connection, f"{method} {target}", headers, json.dumps(asked).encode(), lacking)
        except (ssl.SSLError, ConnectionError):
            return Answer(source=source, holder=holder)
        except http.client.IncompleteRead as cut_off:  # the process ended in the middle of its answer
            self.heard.append(cut_off.partial)
            return Answer(source=source, holder=holder)
        else:
            self.heard.append(answer.headers.as_bytes() + answer.body)
            return replace(answer, source=source, holder=holder)
        finally:
            connection.close()

    def bearer(self, token: str, holder: Holder | None = None, **options: Any) -> Answer:
        """Ask with a bearer token."""
        return self.ask(holder, [("Authorization", f"Bearer {token}")], **options)

    def signatures(self) -> int:
        """How many C_Sign the HSM has seen."""
        return self.shim.counts()["C_Sign"].calls

    def records(self) -> list[dict[str, Any]]:
        """Its audit log."""
        return audit_records(self.stack)


def _exchange(
    connection: http.client.HTTPSConnection, what: str, headers: Sequence[Header], body: bytes, lacking: int
) -> Answer:
    method, target = what.split(" ")
    length = str(len(body) + lacking)
    about_body = [("Content-Type", "application/json"), ("Content-Length", length)] if method == "POST" else []
    connection.putrequest(method, target)
    for name, value in (*about_body, *headers):
        connection.putheader(name, value)
    connection.endheaders(body if method == "POST" else None)
    response = connection.getresponse()
    content = response.read()
    document = json.loads(content) if "json" in response.headers["Content-Type"] else {}
    return Answer(response.status, document.get("code"), document.get("request_id"), response.headers, content)


def leaf(holder: Holder) -> Header:
    """The header in which a balancer names the certificate it verified: base64 keeps its plus signs."""
    return "X-Amzn-Mtls-Clientcert-Leaf", quote(holder.pem, safe="+=/")


@contextmanager
def site(
    directory: Path,
    emulator: Emulator,
    token: Token,
    module: Path,
    people: People,
    **environment: str,
) -> Iterator[Site]:
    """Run a service that takes client certificates, tokens and a load balancer's word."""
    directory.mkdir()
    issuer = Issuer()
    with ExitStack() as closing:
        stack = Stack(directory, emulator, token)
        kept = [line for line in stack.config.read_text().splitlines() if not line.startswith("callers = ")]
        stack.config.write_text("\n".join(kept))
        shim = Shim(Path(closing.enter_context(TemporaryDirectory(prefix="shim"))))
        port, health_port = free_port(), free_port()
        settings = _settings(stack, people, issuer) | {
            "SIGNER_HTTP__PORT": str(port),
            "SIGNER_HTTP__HEALTH__PORT": str(health_port),
            "SIGNER_HSM__MODULE": str(LIBRARY),
            "SIGNER_SIGNING_TIMEOUT_S": "5",
            "SIGNER_READINESS_INTERVAL_S": "3600",  # its probes sign too
        }
        stack.environment |= shim.environment(module, None, latency=False) | settings | environment
        stack.http_url = f"http://127.0.0.1:{health_port}"
        process = stack.start()
        closing.callback(process.terminate)
        yield Site(people, issuer, stack, shim, directory, port, process)


def _policy_file(directory: Path, queue: str) -> Path:
    """Who may do what; a key and two callers are killed, one key is granted to nobody, and one that is not there is."""
    names = (SPIFFE, CALLER, "dns:settlement.bank.example", KILLED, queue)
    callers = [
        *(caller(name, keys=["settlement", "killed", "planned"]) for name in names),
        caller(
            NARROW,
            limits="max_batch = 2",
            algorithms=["RSASSA_PKCS1_V1_5_SHA_256"],
            content=["message"],
            operations=["sign"],
        ),
        caller(CHECKER, algorithms=["RSASSA_PKCS1_V1_5_SHA_256"], content=["message"], operations=["verify"]),
        *(caller(name, limits='roles = ["auditor"]', keys=[]) for name in (AUDITOR, OUSTED)),
        *(caller(name, limits="transactions_per_second = 0.01\nburst = 1") for name in LIMITED),
    ]
    file = directory / "policy.toml"
    file.write_text(policy(*callers))
    for target in (Target("key", "killed"), Target("caller", KILLED), Target("caller", OUSTED)):
        KillFile(kill_file_beside(file)).kill(target, KILL)
    return file


def _settings(stack: Stack, people: People, issuer: Issuer) -> dict[str, str]:
    directory = stack.directory
    certificate, key = server_certificate(people.root).write(directory, "server")
    for name, content in (
        ("client-ca.pem", people.root.pem + people.middle.pem),
        ("client-crl.pem", people.lists(people.revoked)),
        ("jwks.json", issuer.jwks()),
    ):
        (directory / name).write_bytes(content)
    return {
        "SIGNER_KEYS": json.dumps({alias: {"label": KEY_LABEL} for alias in ("settlement", "killed", "fees")}),
        "SIGNER_POLICY__FILE": str(_policy_file(directory, queue_of(stack))),
        "SIGNER_HTTP__TLS__CERTIFICATE": str(certificate),
        "SIGNER_HTTP__TLS__KEY": str(key),
        "SIGNER_HTTP__TLS__CLIENT_CA": str(directory / "client-ca.pem"),
        "SIGNER_HTTP__TLS__CLIENT_CRL": str(directory / "client-crl.pem"),
        "SIGNER_HTTP__TLS__RELOAD_INTERVAL_S": "0.1",
        "SIGNER_HTTP__PROXY__NETWORKS": json.dumps([f"{BALANCER}/32"]),
        "SIGNER_HTTP__JWT__ISSUER": ISSUER,
        "SIGNER_HTTP__JWT__AUDIENCE": AUDIENCE,
        "SIGNER_HTTP__JWT__JWKS_FILE": str(directory / "jwks.json"),
        "SIGNER_HTTP__JWT__ALGORITHMS": '["RS256", "ES256"]',
        "SIGNER_HTTP__AUDITED_REFUSALS_PER_MINUTE": "10000",
        "SIGNER_POLICY__AUDITED_REFUSALS_PER_MINUTE": "10000",
    }
