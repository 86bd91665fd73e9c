"""Where the code decodes what it did not make, and which of these places no fuzzer reaches, and why."""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import signer

ROOT: Final = Path(signer.__file__).parents[1]
_DECODERS: Final = frozenset(
    {
        *("loads", "parse", "b64decode", "urlsafe_b64decode", "fromhex", "unquote", "urlsplit", "UUID", "PyJWK"),
        *("decode_complete", "fromisoformat", "fromtimestamp", "ip_address", "ip_network", "int", "float"),
        *("load_verify_locations", "load_cert_chain", "create_default_context", "model_validate", "from_message"),
    }
)
_PREFIXES: Final = ("load_pem_", "load_der_")
OMITTED: Final[dict[str, str]] = {
    "signer/demo/": "reads what the demo's own processes wrote",
    "signer/drill/": "reads what the drill's own processes wrote",
    "signer/hsm/cryptoki.py": "return codes of the module, as C gives them",
    "signer/hsm/errors.py": "return codes of the module, in the words of python-pkcs11",
    "signer/hsm/module.py": "a session's handle, which is a number",
    "signer/api/batch.py": "a status of our own table",
    "signer/api/problems.py": "a status of our own table",
    "signer/api/intake.py": "X-Request-Id, tests/integration/test_http_signing.py; and a status of our own",
    "signer/api/tls.py: require_accepted": "a certificate that was read before it named its caller",
    "signer/authority.py": "numbers of a policy that was read",
    "signer/checks.py": "what SQS says of a queue",
    "signer/cli/audit.py": "digits, by a regular expression",
    "signer/ledger/schema.py": "a number, by its column's type",
    "signer/ledger/sqlite.py": "a number, by its column's type",
    "signer/ledger/claims.py: count_new_names": "a count of SQLite's",
    "signer/ledger/claims.py: latest": "a number, by its column's type",
    "signer/policy_watch.py": "calls the two parsers it was given",
    "signer/ports.py: value_bytes": "a signature of our own, once it was kept",
    "signer/signatures.py": "a constant",
    "signer/sqs/depths.py": "digits that SQS says of a queue",
    "signer/sqs/inbound.py": "names of our own that SQS repeats",
    "signer/sqs/lease.py": "seconds of our own clock",
    "signer/sqs/payload.py": "a hash of our own",
    "signer/stores.py": "the last signature on record, whose line was found to be what the audit log wrote",
    "signer/versions.py: keepable_s": "seconds of our own clock",
    "signer/wiring.py": "a failpoint, for crash tests, that the settings let through by a regular expression",
}
"""Modules, directories and functions, by how their names begin."""


@dataclass(frozen=True)
class Place:
    """A call that decodes something."""

    file: str
    function: str
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.file}: {self.function}"

    @property
    def lines(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def omission(self) -> str | None:
        """The entry of `OMITTED` that it falls under."""
        return next((start for start in OMITTED if self.name.startswith(start)), None)


def places() -> Iterator[Place]:
    """Find every call in the service that decodes something, or may."""
    for file in sorted((ROOT / "signer").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        yield from _calls(tree, file.relative_to(ROOT).as_posix(), "")


def _calls(node: ast.AST, file: str, function: str) -> Iterator[Place]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.Call) and _decodes(node.func):
        yield Place(file, function, node.lineno, node.end_lineno or node.lineno)
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, file, function)


def _decodes(called: ast.expr) -> bool:
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name in _DECODERS or name.startswith(_PREFIXES)


def lines_run_by(work: Callable[[], None]) -> set[tuple[str, int]]:
    """Give every line of the service that `work` comes by, by file."""
    seen: set[tuple[str, int]] = set()
    names: dict[str, str | None] = {}

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        path = frame.f_code.co_filename
        if path not in names:
            inside = path.startswith(str(ROOT / "signer"))
            names[path] = Path(path).relative_to(ROOT).as_posix() if inside else None
        name = names[path]
        if name is None:
            return None
        if event == "line":
            seen.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen
