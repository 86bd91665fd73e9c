"""Who is killed, or whom the policy does not name, is refused as such: it is not even told how to ask."""

from collections.abc import Callable
from typing import TypeVar

from signer.api.exchange import Exchange
from signer.errors import InvalidInputError
from signer.inquiries import Inquiries

Wanted = TypeVar("Wanted")
_UNREADABLE = "the request could not be read"


def read_for(inquiries: Inquiries, exchange: Exchange, operation: str, read: Callable[[], Wanted]) -> Wanted:
    """Give what `read` gives; if it raises, whoever may ask for nothing is refused for that, on record."""
    try:
        return read()
    except InvalidInputError:
        refuse(inquiries, exchange, operation, None, _UNREADABLE)
        raise


def refuse(inquiries: Inquiries, exchange: Exchange, operation: str, key_alias: str | None, detail: str) -> None:
    """Return if the caller may ask, and sign with the key if one is named; raises what `Inquiries.refusal` gives."""
    refused = inquiries.refusal(operation, exchange.origin, key_alias, detail)
    if refused is not None:
        exchange.audit_id = refused.audit_id
        raise refused.error
