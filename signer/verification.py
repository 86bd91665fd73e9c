"""Checks a signed batch, or one transaction of it, against public keys: offline, without HSM, settings or network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from signer import strict_json
from signer.errors import InvalidInputError
from signer.rendering import SIGNED_BATCH_SCHEMA
from signer.signatures import algorithm_named, fingerprint, verifies
from signer.transactions import decode_base64, transaction_digest

_SIGNATURE_MEMBERS: Final = (
    "algorithm", "key_alias", "key_label", "key_fingerprint", "digest", "value", "signed_at", "audit_id"
)  # fmt: skip
_TRANSACTION_MEMBERS: Final = ("transaction_id", "message", "payload", "signature")
_BATCH_MEMBERS: Final = ("schema", "batch_id", "key", "algorithm", "transactions")
_UNKNOWN_MEMBER: Final = "an unknown member, which no signature covers, stands beside the known ones"


@dataclass(frozen=True, slots=True)
class Verified:
    """What came out for one transaction."""

    transaction_id: str
    problem: str | None
    """None: the signature is valid over this content, by one of the given keys."""
    key_label: str | None = None
    signed_at: str | None = None
    audit_id: str | None = None


def read_public_keys(pems: Sequence[bytes]) -> dict[str, RSAPublicKey]:
    """Give the RSA public keys by fingerprint; raises `InvalidInputError` for anything else."""
    keys = {}
    for pem in pems:
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, RSAPublicKey):
            msg = "a public key file is not an RSA public key in PEM (SubjectPublicKeyInfo)"
            raise InvalidInputError(msg)
        keys[fingerprint(key)] = key
    return keys


def verify_document(
    body: bytes, public_keys: Mapping[str, RSAPublicKey], transaction_id: str | None = None
) -> list[Verified]:
    """Verify every transaction of a signed batch, or only `transaction_id`, or a file that is one signed transaction.

    Raises `InvalidInputError` where there is nothing to verify; a wrong signature is a `Verified` with a problem.
    """
    document = strict_json.parse(body)
    transactions = _transactions_of(document)
    counts = Counter(map(_id_of, transactions))
    if transaction_id is not None:
        transactions = [item for item in transactions if _id_of(item) == transaction_id]
    if not transactions:
        msg = "the file holds no such transaction" if transaction_id is not None else "the batch has no transactions"
        raise InvalidInputError(msg)
    return [_verify(transaction, public_keys, counts[_id_of(transaction)]) for transaction in transactions]


def _transactions_of(document: Any) -> list[Any]:
    if isinstance(document, dict) and document.get("schema") == SIGNED_BATCH_SCHEMA:
        if not document.keys() <= set(_BATCH_MEMBERS):
            raise InvalidInputError(_UNKNOWN_MEMBER)
        transactions = document.get("transactions")
        return transactions if isinstance(transactions, list) else []
    if isinstance(document, dict) and "signature" in document and "transaction_id" in document:
        return [document]
    msg = f"the file is neither a batch of schema {SIGNED_BATCH_SCHEMA} nor one signed transaction"
    raise InvalidInputError(msg)


def _verify(transaction: Any, public_keys: Mapping[str, RSAPublicKey], count: int) -> Verified:
    signature = transaction.get("signature") if isinstance(transaction, dict) else None
    if not isinstance(signature, dict) or not _is_complete(signature):
        return Verified(_id_of(transaction), "it carries no complete signature")
    try:
        problem = _problem_of_form(transaction, signature, count) or _problem_of(transaction, signature, public_keys)
    except InvalidInputError as error:
        problem = error.message
    return Verified(
        _id_of(transaction), problem, signature["key_label"], signature["signed_at"], signature["audit_id"]
    )  # fmt: skip


def _problem_of_form(transaction: Mapping[str, Any], signature: Mapping[str, str], count: int) -> str | None:
    # None of this is signed: it could look signed to whoever reads only our verdict.
    if not isinstance(transaction.get("transaction_id"), str):
        return "it has no transaction_id"
    if count > 1:
        return "its transaction_id stands twice in the batch"
    if not (transaction.keys() <= set(_TRANSACTION_MEMBERS) and signature.keys() <= set(_SIGNATURE_MEMBERS)):
        return _UNKNOWN_MEMBER
    return None


def _problem_of(
    transaction: Mapping[str, Any], signature: Mapping[str, str], public_keys: Mapping[str, RSAPublicKey]
) -> str | None:
    algorithm = algorithm_named(signature["algorithm"])
    digest = transaction_digest(transaction)
    public_key = public_keys.get(signature["key_fingerprint"])
    if public_key is None:
        return "none of the public keys has the fingerprint it names"
    if decode_base64(signature["digest"], "digest") != digest:
        return "the content is not what was signed: its digest differs"
    if not verifies(public_key, algorithm, digest, decode_base64(signature["value"], "value")):
        return "the signature is not valid"
    return None


def _is_complete(signature: Mapping[str, Any]) -> bool:
    return all(isinstance(signature.get(name), str) for name in _SIGNATURE_MEMBERS)


def _id_of(transaction: object) -> str:
    value = transaction.get("transaction_id") if isinstance(transaction, dict) else None
    return value if isinstance(value, str) else "?"
