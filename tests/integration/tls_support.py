"""TLS files for a service under test, who made them, and clients that use them."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.integration.http_support import PATIENCE_S, Entrance, signing_request
from tests.pki import DAY, Authority, Holder, client_context

SPIFFE = "spiffe://bank.example/settlement"


@dataclass
class Files:
    """The TLS files of a service, and who made them."""

    directory: Path
    root: Authority
    certificate: Path
    key: Path

    @property
    def client_ca(self) -> Path:
        return self.directory / "client-ca.pem"

    @property
    def client_crl(self) -> Path:
        return self.directory / "client-crl.pem"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """What goes into `http.tls`."""
        files = {name: getattr(self, name) for name in ("certificate", "key", "client_ca", "client_crl")}
        return {**files, "reload_interval_s": 0.02, **changes}

    def context(self, holder: Holder | None) -> ssl.SSLContext:
        return client_context(self.root, self.directory, holder)

    def replace(self, path: Path, content: bytes) -> None:
        """Exchange a file as one should: by a rename."""
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(content)
        new.replace(path)


BAD_LISTS: list[tuple[str, Callable[[Files], bytes]]] = [
    ("nothing", lambda _files: b""),
    ("no PEM", lambda _files: b"canary"),
    ("signed by somebody else", lambda _files: Authority("Root").crl()),
    ("of an authority that is not ours", lambda _files: Authority("Other").crl()),
    ("run out", lambda files: files.root.crl(updated=-3 * DAY, next_update=-DAY)),
    ("of tomorrow", lambda files: files.root.crl(updated=DAY, next_update=2 * DAY)),
    ("with an authority", lambda files: files.root.crl() + Authority("Smuggled").pem),
    ("half written", lambda files: files.root.crl()[:-40]),
]


@contextmanager
def client(entrance: Entrance, context: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"https://localhost:{entrance.port}", verify=context, timeout=PATIENCE_S) as made:
        yield made


def sign(asking: httpx.Client, transaction_id: str = "T-1") -> httpx.Response:
    return asking.post("/v1/sign", json=signing_request(transaction_id=transaction_id))


def is_let_in(entrance: Entrance, context: ssl.SSLContext) -> bool:
    """Try on a connection of its own."""
    try:
        with client(entrance, context) as asking:
            return sign(asking).status_code == 200
    except httpx.TransportError:
        return False


def is_still_let_in(asking: httpx.Client) -> bool:
    """Try on a connection that may just be ended: then, as clients do, once more on another."""
    for _ in range(2):
        with suppress(httpx.TransportError):
            return sign(asking).status_code == 200
    return False


def refusals(entrance: Entrance) -> list[str | None]:
    return [entry.error_code for entry in entrance.audit.entries if entry.operation == "authenticate"]
