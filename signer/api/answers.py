"""What is said of one transaction that was signed, or would be; the same in every answer."""

import base64
from typing import Any

from signer.rehearsal import Rehearsed
from signer.transactions import SigningRequest
from signer.work import Signed


def answer_of(request: SigningRequest, outcome: Signed | Rehearsed) -> dict[str, Any]:
    """Give the members that tell what became of `request`; KMS's name of the algorithm stands beside JOSE's."""
    named = {"transaction_id": request.transaction_id} if request.names_transaction else {}
    jose = {"jose_algorithm": request.algorithm.jose}
    if isinstance(outcome, Signed):
        return {**named, **jose, "signature": outcome.signature.to_message()}
    rehearsed = {
        "outcome": "replayed" if outcome.replayed else "signed",
        "algorithm": request.algorithm.name,
        "key_alias": request.key_alias,
        "key_label": outcome.key_label,
        "key_fingerprint": outcome.key_fingerprint,
        "digest": base64.b64encode(request.digest).decode("ascii"),
        "audit_id": outcome.audit_id,
    }
    return {**named, **jose, "dry_run": rehearsed}
