"""What the bodies of requests say: strictly read, and refused with a code where they say it wrongly; pure."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from signer import strict_json
from signer.errors import (
    DuplicateTransactionError,
    EmptyBatchError,
    InvalidInputError,
    InvalidTransactionError,
    TooManyTransactionsError,
)
from signer.inquiries import Search, VerificationRequest
from signer.signatures import Algorithm
from signer.transactions import (
    CONTENTS,
    SigningRequest,
    algorithm_of,
    content_of,
    decode_base64,
    identifier,
    identifier_or_none,
    only_members,
    transaction_digest,
)

DRY_RUN: Final = "dry_run"
_SIGN_MEMBERS: Final = frozenset({DRY_RUN, "key", "transaction_id", "algorithm", *CONTENTS})
_BATCH_MEMBERS: Final = frozenset({DRY_RUN, "key", "algorithm", "transactions"})
_ITEM_MEMBERS: Final = frozenset({"reference", "transaction_id", *CONTENTS})
_VERIFY_MEMBERS: Final = frozenset({"key", "algorithm", "signature", *CONTENTS})


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One item of a batch, as far as it can be read."""

    reference: str | None
    """The caller's own name for it."""
    transaction_id: str | None
    """None where the item names none that is well-formed."""
    request: SigningRequest | InvalidInputError


@dataclass(frozen=True, slots=True)
class Batch:
    """What `/v1/sign-batch` is asked for."""

    key_alias: str
    items: list[BatchItem]
    dry_run: bool

    def requests(self) -> list[SigningRequest]:
        """Give those items that can be read."""
        return [item.request for item in self.items if isinstance(item.request, SigningRequest)]


def parse_sign(body: bytes, stand_in_id: str) -> tuple[SigningRequest, bool]:
    """Read the body of `/v1/sign`; raises a subclass of `InvalidInputError`.

    `stand_in_id` takes the place of a transaction id that is not given. Tells, too, whether it is only to be tried.
    """
    document = _object_in(body)
    only_members(document, _SIGN_MEMBERS)
    key_alias, algorithm = identifier(document, "key"), algorithm_of(document)
    return _signing_request(document, key_alias, algorithm, stand_in_id), _dry_run_of(document)


def parse_sign_batch(body: bytes, max_items: int, stand_in_id: Callable[[int], str]) -> Batch:
    """Read the body of `/v1/sign-batch`; raises `InvalidInputError` where the batch itself is wrong.

    What is wrong with one item stands in its place. `stand_in_id` names the item of an index that names itself not.
    """
    document = _object_in(body)
    only_members(document, _BATCH_MEMBERS)
    key_alias, algorithm, dry_run = identifier(document, "key"), algorithm_of(document), _dry_run_of(document)
    items = _items_of(document, max_items)
    counts = Counter(_name_in(item, "transaction_id") for item in items)
    parsed = [
        BatchItem(
            _name_in(item, "reference"),
            _name_in(item, "transaction_id"),
            _request_or_error(item, key_alias, algorithm, stand_in_id(index), counts),
        )
        for index, item in enumerate(items)
    ]
    return Batch(key_alias, parsed, dry_run)


def parse_verify(body: bytes) -> VerificationRequest:
    """Read the body of `/v1/verify`; raises a subclass of `InvalidInputError`."""
    document = _object_in(body)
    only_members(document, _VERIFY_MEMBERS)
    return VerificationRequest(
        key_alias=identifier(document, "key"),
        algorithm=algorithm_of(document),
        digest=transaction_digest(document, CONTENTS),
        signature=decode_base64(document.get("signature"), "signature"),
        content=content_of(document),
    )


def _object_in(body: bytes) -> dict[str, Any]:
    document = strict_json.parse(body)
    if not isinstance(document, dict):
        msg = "the request is not a JSON object"
        raise InvalidInputError(msg)
    return document


def _signing_request(
    document: Mapping[str, Any], key_alias: str, algorithm: Algorithm, stand_in_id: str
) -> SigningRequest:
    named = "transaction_id" in document
    return SigningRequest(
        key_alias=key_alias,
        transaction_id=identifier(document, "transaction_id") if named else stand_in_id,
        digest=transaction_digest(document, CONTENTS),
        algorithm=algorithm,
        names_transaction=named,
        content=content_of(document),
    )


def _dry_run_of(document: Mapping[str, Any]) -> bool:
    wanted = document.get(DRY_RUN, False)
    if isinstance(wanted, bool):
        return wanted
    msg = f"`{DRY_RUN}` is neither true nor false"
    raise InvalidInputError(msg)


def parse_search(query: Sequence[tuple[str, str]]) -> Search:
    """Read the query of `/v1/signatures`: one parameter, once; raises a subclass of `InvalidInputError`."""
    match query:
        case [("transaction_id", value)]:
            return Search(transaction_id=identifier({"transaction_id": value}, "transaction_id"))
        case [("digest", value)]:
            return Search(digest=transaction_digest({"digest": value}, ("digest",)))
        case _:
            msg = "the query is not exactly one of `transaction_id` and `digest`"
            raise InvalidInputError(msg)


def _items_of(document: Mapping[str, Any], max_items: int) -> list[Any]:
    items = document.get("transactions")
    if not isinstance(items, list):
        msg = "`transactions` is not an array"
        raise InvalidInputError(msg)
    if not items:
        msg = "the batch has no transactions"
        raise EmptyBatchError(msg)
    if len(items) > max_items:
        msg = f"the batch has more than {max_items} transactions"
        raise TooManyTransactionsError(msg)
    return items


def _request_or_error(
    item: object, key_alias: str, algorithm: Algorithm, stand_in_id: str, counts: Counter[str | None]
) -> SigningRequest | InvalidInputError:
    try:
        if not isinstance(item, dict):
            msg = "a transaction is not a JSON object"
            raise InvalidTransactionError(msg)
        only_members(item, _ITEM_MEMBERS)
        if "reference" in item:
            identifier(item, "reference")
        request = _signing_request(item, key_alias, algorithm, stand_in_id)
        if counts[request.transaction_id] > 1:
            msg = "the batch names this transaction_id more than once"
            raise DuplicateTransactionError(msg)
    except InvalidInputError as error:
        return error
    return request


def _name_in(item: object, member: str) -> str | None:
    return identifier_or_none(item.get(member)) if isinstance(item, dict) else None
