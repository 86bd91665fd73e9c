"""What a load sends: a book of distinct messages with the digests they must be signed over, each sent many times.

A replaying module signs each digest once; under ever new transaction ids the service has all of its work all the same.
That it asks the module each time, and remembers nothing by itself, is proven by the module's own count.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import rfc8785

ALIAS: Final = "settlement"
_FIELDS: Final = {"currency": "EUR", "creditor": "DE89370400440532013000", "debtor": "GB33BUKB20201555555555"}


@dataclass(frozen=True, slots=True)
class Page:
    """One message."""

    text: str
    """As JSON."""
    digest: bytes
    """SHA-256 of its canonical bytes (RFC 8785), reckoned here."""


class Book:
    """So many messages of about `size_bytes` each, in turn."""

    def __init__(self, size_bytes: int, pages: int) -> None:
        self.pages = [_page(number, size_bytes) for number in range(pages)]
        self._numbers = count()

    def take(self, prefix: str) -> tuple[str, Page]:
        """Give a transaction id that nobody had, and a message."""
        number = next(self._numbers)
        return f"{prefix}-{number}", self.pages[number % len(self.pages)]


def _page(number: int, size_bytes: int) -> Page:
    # Members in no order, as they come from people's programs.
    message = {"reference": f"INV-{number:08}", **_FIELDS, "amount": f"{number}.00", "note": ""}
    message["note"] = "x" * max(0, size_bytes - len(json.dumps(message)))
    return Page(json.dumps(message), hashlib.sha256(rfc8785.dumps(dict(message))).digest())


def request_body(transaction_id: str, page: Page, key: str = ALIAS) -> bytes:
    """Give the body of one HTTP request."""
    return f'{{"key": "{key}", "transaction_id": "{transaction_id}", "message": {page.text}}}'.encode()


def items_body(transactions: Sequence[tuple[str, Page]]) -> bytes:
    """Give the body of one HTTP request for several transactions."""
    return f'{{"key": "{ALIAS}", "transactions": [{_items(transactions)}]}}'.encode()


def batch_body(batch_id: str, transactions: Sequence[tuple[str, Page]], key: str = ALIAS) -> str:
    """Give one settlement batch."""
    head = f'{{"schema": "settlement-batch/1", "batch_id": "{batch_id}", "key": "{key}"'
    return f'{head}, "transactions": [{_items(transactions)}]}}'


def _items(transactions: Sequence[tuple[str, Page]]) -> str:
    return ", ".join(f'{{"transaction_id": "{name}", "message": {page.text}}}' for name, page in transactions)
