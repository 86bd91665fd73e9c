"""Signed batches as bytes: rendered once and before anything is signed, so that what cannot go out is not signed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from signer import strict_json

SIGNED_BATCH_SCHEMA: Final = "signed-settlement-batch/1"

_SEPARATOR: Final = b","
_END_OF_TRANSACTION: Final = b"}"
# JSON may hold these two raw and SQS refuses them (it takes #x9 #xA #xD #x20-#xFFFD #x10000-).
_ESCAPED: Final = (("\ufffe".encode(), rb"\ufffe"), ("\uffff".encode(), rb"\uffff"))


@dataclass(frozen=True, slots=True)
class Form:
    """A batch as it goes out, but for its signatures."""

    head: bytes
    transactions: tuple[bytes, ...]
    """Each up to the place where its signature belongs."""
    tail: bytes

    def size_bytes(self, signature: Mapping[str, str]) -> int:
        """Give the size it will have when all signatures are as long as this one."""
        each = len(_render(signature)) + len(_END_OF_TRANSACTION) + len(_SEPARATOR)
        content = sum(map(len, self.transactions)) + each * len(self.transactions) - len(_SEPARATOR)
        return len(self.head) + content + len(self.tail)

    def fill(self, signatures: Sequence[Mapping[str, str]]) -> bytes:
        """Put the signatures in, one for each transaction, in order; equal input gives equal bytes."""
        pieces = [self.head]
        for transaction, signature in zip(self.transactions, signatures, strict=True):
            pieces += (transaction, _render(signature), _END_OF_TRANSACTION, _SEPARATOR)
        pieces[-1] = self.tail
        return b"".join(pieces)


def form_of(document: Mapping[str, Any]) -> Form:
    """Render a settlement batch of at least one transaction, its members in the order in which they came."""
    names = list(document)
    place = names.index("transactions")
    before, after = (
        [_render(name) + b":" + _render(SIGNED_BATCH_SCHEMA if name == "schema" else document[name]) for name in part]
        for part in (names[:place], names[place + 1 :])
    )
    # A transaction has one member at least, and never a signature of its own.
    opened = tuple(_render(transaction)[:-1] + b',"signature":' for transaction in document["transactions"])
    head = b"{" + _SEPARATOR.join([*before, b'"transactions":['])
    return Form(head, opened, _SEPARATOR.join([b"]", *after]) + b"}")


def _render(value: Any) -> bytes:
    rendered = strict_json.dumps(value)
    for raw, escaped in _ESCAPED:
        rendered = rendered.replace(raw, escaped)
    return rendered
