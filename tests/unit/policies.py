"""A policy file as operators write it, for the tests of the policy."""

import hashlib
from pathlib import Path

from signer.policy import Kill
from signer.signatures import DEFAULT_ALGORITHM, Algorithm
from signer.transactions import SigningRequest

BANK = "spiffe://bank.example/settlement"
QUEUE = "queue:settlement-inbound"
AUDITOR = "dns:audit.bank.example"
POLICY = f"""
schema = "signer-policy/1"

[[callers]]
name = "{QUEUE}"
[callers.keys.settlement]
algorithms = ["RSASSA_PKCS1_V1_5_SHA_256"]
content = ["message", "payload"]

[[callers]]
name = "{BANK}"
max_batch = 3
transactions_per_second = 2
burst = 4
[callers.keys.settlement]
algorithms = ["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]
content = ["message", "payload"]
require_transaction_id = false
[callers.keys.payout]
algorithms = ["RSASSA_PSS_SHA_256"]
content = ["digest"]

[[callers]]
name = "{AUDITOR}"
roles = ["auditor"]
"""
KILL = Kill("alice@bank.example", "it signed what nobody sent", "2028-03-08T12:00:00.000000Z")


def asked(
    key: str = "settlement",
    algorithm: Algorithm = DEFAULT_ALGORITHM,
    content: str = "message",
    number: int = 1,
    *,
    named: bool = True,
) -> SigningRequest:
    """A request to be decided on."""
    digest = hashlib.sha256(str(number).encode()).digest()
    return SigningRequest(key, f"TXN-{number}", digest, algorithm, named, content)


def replace_file(path: Path, content: str) -> None:
    """Put another file in its place in one step, as operators should."""
    new = path.with_name(path.name + ".tmp")
    new.write_text(content, encoding="utf-8")
    new.replace(path)
