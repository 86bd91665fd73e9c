"""Settlement batches and transactions: parsed strictly, and reduced to a digest."""

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from signer import strict_json
from signer.errors import (
    BatchAbandonedError,
    DuplicateTransactionError,
    EmptyBatchError,
    InvalidBase64Error,
    InvalidInputError,
    InvalidTransactionError,
    SignerError,
    TooManyTransactionsError,
    UnknownSchemaError,
)
from signer.rendering import Form, form_of
from signer.signatures import DEFAULT_ALGORITHM, DIGEST_SIZE_BYTES, Algorithm, algorithm_named

BATCH_SCHEMA: Final = "settlement-batch/1"

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_IDENTIFIER_RULE: Final = "1 to 128 of A-Z a-z 0-9 . _ : / - beginning with a letter or digit"
_BATCH_MEMBERS: Final = frozenset({"schema", "batch_id", "key", "algorithm", "transactions"})
_CONTENT_MEMBERS: Final = ("message", "payload")
CONTENTS: Final = (*_CONTENT_MEMBERS, "digest")
"""What can be asked to be signed."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """One transaction, reduced to what the core needs to sign it."""

    key_alias: str
    transaction_id: str
    digest: bytes
    """SHA-256 of the canonical bytes (32 bytes)."""
    algorithm: Algorithm
    names_transaction: bool = True
    """False where `transaction_id` stands in for one that the caller did not give."""
    content: str = "digest"
    """Which member it was given as, one of `CONTENTS`; the default is the one that is granted last."""


@dataclass(frozen=True, slots=True)
class SettlementBatch:
    """One inbound batch, every transaction of it fit to be signed."""

    batch_id: str
    requests: tuple[SigningRequest, ...]
    form: Form
    """The batch as it was sent, ready for the signatures."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one transaction of a batch is not signed."""

    index: int
    transaction_id: str | None
    """None where the batch names none that is well-formed."""
    error: SignerError


class BatchRefusedError(InvalidInputError):
    """A batch that can never be signed: what is wrong with it, and with each of its transactions."""

    def __init__(self, cause: SignerError, batch_id: str | None = None, refusals: Sequence[Refusal] = ()) -> None:
        super().__init__(cause.message)
        self.cause = cause.without_frames()
        self.batch_id = batch_id
        self.refusals = tuple(refusals)


def parse_batch(body: bytes, max_transactions: int) -> SettlementBatch:
    """Read one inbound settlement batch; raises `BatchRefusedError` and nothing else.

    No more than `max_transactions` of a refused batch are named.
    """
    try:
        document = strict_json.parse(body)
    except InvalidInputError as error:
        raise BatchRefusedError(error) from None
    batch_id = identifier_or_none(document.get("batch_id")) if isinstance(document, dict) else None
    try:
        transactions = _transactions_of(document, max_transactions)
        key_alias = identifier(document, "key")
        algorithm = algorithm_of(document)
    except InvalidInputError as error:
        raise BatchRefusedError(error, batch_id, _refuse_all(document, error, max_transactions)) from None
    requests = _requests_of(transactions, key_alias, algorithm, batch_id)
    return SettlementBatch(document["batch_id"], requests, form_of(document))


def transaction_digest(transaction: Mapping[str, Any], allowed: Sequence[str] = _CONTENT_MEMBERS) -> bytes:
    """Hash a transaction's canonical bytes (32 bytes); `message`, `payload` or a ready `digest`, where `allowed`."""
    present = [name for name in allowed if name in transaction]
    if len(present) != 1:
        msg = f"a transaction carries exactly one of {', '.join(allowed)}"
        raise InvalidTransactionError(msg)
    content = transaction[present[0]]
    if present[0] == "message":
        return hashlib.sha256(_message_bytes(content)).digest()
    octets = decode_base64(content, present[0])
    return hashlib.sha256(octets).digest() if present[0] == "payload" else _exact_digest(octets)


def decode_base64(text: object, name: str) -> bytes:
    """Decode standard padded base64 of at least one byte; raises `InvalidBase64Error` naming the member `name`."""
    try:
        octets = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        octets = b""
    # Re-encoding catches what the decoder forgives: stray bits after the end would give one content two spellings.
    if octets and base64.b64encode(octets).decode("ascii") == text:
        return octets
    msg = f"`{name}` is not standard, padded base64 of at least one byte"
    raise InvalidBase64Error(msg)


def content_of(transaction: Mapping[str, Any]) -> str:
    """Name the member of `CONTENTS` that a transaction carries; it must carry one."""
    return next(name for name in CONTENTS if name in transaction)


def _message_bytes(message: object) -> bytes:
    if not isinstance(message, dict | list):
        msg = "`message` is neither a JSON object nor an array"
        raise InvalidTransactionError(msg)
    return strict_json.canonical(message)


def _exact_digest(octets: bytes) -> bytes:
    if len(octets) != DIGEST_SIZE_BYTES:
        msg = f"`digest` is not exactly {DIGEST_SIZE_BYTES} bytes"
        raise InvalidTransactionError(msg)
    return octets


def _transactions_of(document: object, max_transactions: int) -> list[Any]:
    if not isinstance(document, dict):
        msg = "the batch is not a JSON object"
        raise InvalidInputError(msg)
    if document.get("schema") != BATCH_SCHEMA:
        msg = f"unknown schema; expected {BATCH_SCHEMA}"
        raise UnknownSchemaError(msg)
    only_members(document, _BATCH_MEMBERS)
    identifier(document, "batch_id")
    transactions = document.get("transactions")
    if not isinstance(transactions, list):
        msg = "`transactions` is not an array"
        raise InvalidInputError(msg)
    if not transactions:
        msg = "the batch has no transactions"
        raise EmptyBatchError(msg)
    if len(transactions) > max_transactions:
        msg = f"the batch has more than {max_transactions} transactions"
        raise TooManyTransactionsError(msg)
    return transactions


def _requests_of(
    transactions: list[Any], key_alias: str, algorithm: Algorithm, batch_id: str | None
) -> tuple[SigningRequest, ...]:
    counts = Counter(_transaction_id_or_none(transaction) for transaction in transactions)
    parsed: list[SigningRequest | InvalidInputError] = []
    for transaction in transactions:
        try:
            parsed.append(_request_of(transaction, key_alias, algorithm, counts))
        except InvalidInputError as error:
            parsed.append(error.without_frames())
    first_error = next((item for item in parsed if isinstance(item, InvalidInputError)), None)
    if first_error is not None:
        abandoned = BatchAbandonedError("another transaction of the batch was refused")
        refusals = [
            Refusal(index, _transaction_id_or_none(transactions[index]), _error_or(item, abandoned))
            for index, item in enumerate(parsed)
        ]
        raise BatchRefusedError(first_error, batch_id, refusals)
    return tuple(item for item in parsed if isinstance(item, SigningRequest))


def _request_of(
    transaction: object, key_alias: str, algorithm: Algorithm, counts: Counter[str | None]
) -> SigningRequest:
    if not isinstance(transaction, dict):
        msg = "a transaction is not a JSON object"
        raise InvalidTransactionError(msg)
    only_members(transaction, {"transaction_id", *_CONTENT_MEMBERS})
    transaction_id = identifier(transaction, "transaction_id")
    if counts[transaction_id] > 1:
        msg = "the batch names this transaction_id more than once"
        raise DuplicateTransactionError(msg)
    digest = transaction_digest(transaction)
    return SigningRequest(key_alias, transaction_id, digest, algorithm, content=content_of(transaction))


def _refuse_all(document: object, error: SignerError, most: int) -> list[Refusal]:
    transactions = document.get("transactions") if isinstance(document, dict) else None
    if not isinstance(transactions, list):
        return []
    # Of millions, each would cost a hundred times the two bytes it takes to send one.
    named = islice(transactions, most)
    return [Refusal(index, _transaction_id_or_none(item), error) for index, item in enumerate(named)]


def _error_or(item: object, otherwise: SignerError) -> SignerError:
    return item if isinstance(item, SignerError) else otherwise


def algorithm_of(document: Mapping[str, Any]) -> Algorithm:
    """Give the algorithm that `document` names, or the default where it names none; raises `UnknownAlgorithmError`."""
    return algorithm_named(document["algorithm"]) if "algorithm" in document else DEFAULT_ALGORITHM


def only_members(document: Mapping[str, Any], allowed: set[str] | frozenset[str]) -> None:
    """Refuse members that are not `allowed`; raises `InvalidInputError`."""
    # A member nobody signs would travel on beside a signature and look signed.
    if not allowed.issuperset(document):
        msg = f"an unknown member stands beside the known ones ({', '.join(sorted(allowed))})"
        raise InvalidInputError(msg)


def identifier(document: Mapping[str, Any], name: str) -> str:
    """Give the member `name`, which must be an identifier; raises `InvalidInputError`."""
    value = identifier_or_none(document.get(name))
    if value is None:
        msg = f"`{name}` is not an identifier: {_IDENTIFIER_RULE}"
        raise InvalidInputError(msg)
    return value


def identifier_or_none(value: object) -> str | None:
    """Give `value` if it is an identifier."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def _transaction_id_or_none(transaction: object) -> str | None:
    return identifier_or_none(transaction.get("transaction_id")) if isinstance(transaction, dict) else None
