"""The settlement batches of a run: good, large, sent twice, bad in every way, and at odds with one another."""

import base64
import json
import random
import string
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.chaos.evidence import Expect, Sent

PKCS1: Final = "RSASSA_PKCS1_V1_5_SHA_256"
PSS: Final = "RSASSA_PSS_SHA_256"
"""PSS differs whenever it is made again: only what was kept can be released twice."""
_LARGE: Final = 25
_GROUPS: Final = 24

Document = dict[str, Any]
SHARES: Final[Mapping[str, int]] = {
    "good": 56,
    "twice": 8,
    "large": 5,
    "pointer": 5,
    "bad": 14,
    "conflict": 8,
    "rival": 4,
}
"""Of a hundred; `conflict` and `rival` send two batches."""


def _spoil_json(document: Document) -> str:
    text = json.dumps(document)
    return text[: len(text) // 2]


def _double_member(document: Document) -> str:
    return json.dumps(document)[:-1] + ',"batch_id":"again"}'


def _spoil_message(document: Document) -> str:
    document["transactions"][0] = {
        "transaction_id": document["transactions"][0]["transaction_id"],
        "payload": "not base64",
    }
    return json.dumps(document)


def _leave_content_out(document: Document) -> str:
    document["transactions"][-1] = {"transaction_id": document["transactions"][-1]["transaction_id"]}
    return json.dumps(document)


def _double_transaction(document: Document) -> str:
    document["transactions"].append(document["transactions"][0])
    return json.dumps(document)


def _with(**members: Any) -> Callable[[Document], str]:
    return lambda document: json.dumps({**document, **members})


BAD: Final[tuple[tuple[str, Callable[[Document], str]], ...]] = (
    ("invalid_json", _spoil_json),
    ("duplicate_member", _double_member),
    ("unknown_schema", _with(schema="settlement-batch/9")),
    ("empty_batch", _with(transactions=[])),
    ("invalid_input", _with(approved=True)),
    ("unknown_algorithm", _with(algorithm="RSASSA_PKCS1_V1_5_SHA_1")),
    ("not_authorised", _with(key="nobodys")),
    ("not_authorised", _with(key="payout")),
    ("invalid_base64", _spoil_message),
    ("invalid_transaction", _leave_content_out),
    ("duplicate_transaction_id", _double_transaction),
)
"""The reason each must be set aside for, and what makes it so."""


class Mill:
    """Makes batches, each unlike any other; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - test data
        self._made = 0
        self._reasons = 0

    def any(self) -> list[Sent]:
        """Give what is to be sent together, of a kind drawn by its share."""
        return self.of(self._random.choices(list(SHARES), list(SHARES.values()))[0])

    def of(self, kind: str) -> list[Sent]:
        """Give what is to be sent together, of one kind."""
        makers: Mapping[str, Callable[[], list[Sent]]] = {
            "good": lambda: [self._good("good", self._random.randint(1, 4))],
            "twice": self._twice,
            "large": lambda: [self._good("large", _LARGE)],
            "pointer": lambda: [self._good("pointer", _LARGE)],
            "bad": lambda: [self._bad()],
            "conflict": lambda: self._at_odds("conflict"),
            "rival": lambda: self._at_odds("rival"),
        }
        return makers[kind]()

    def _document(self, transactions: int) -> Document:
        self._made += 1
        number = self._made
        return {
            "schema": "settlement-batch/1",
            "batch_id": f"B-{number:05}",
            "key": "settlement",
            "algorithm": self._random.choice((PKCS1, PSS)),
            "transactions": [self._transaction(f"T-{number:05}-{index:02}") for index in range(transactions)],
        }

    def _transaction(self, transaction_id: str) -> Document:
        return {"transaction_id": transaction_id, **self._content()}

    def _content(self) -> Document:
        reference = "".join(self._random.choices(string.ascii_letters + 'äß€ /"\\\n', k=12))
        if self._random.random() < 0.3:
            return {"payload": base64.b64encode(reference.encode()).decode()}
        amount = f"{self._random.randint(1, 10**6)}.{self._random.randint(0, 99):02}"
        return {"message": {"reference": reference, "amount": amount, "items": [1, None, True, {"b": 2, "a": "é"}]}}

    def _good(self, kind: str, transactions: int) -> Sent:
        return self._sent(kind, self._document(transactions), "out")

    def _twice(self) -> list[Sent]:
        sent = self._good("twice", self._random.randint(1, 4))
        return [sent, sent]

    def _bad(self) -> Sent:
        code, spoil = BAD[self._reasons % len(BAD)]
        self._reasons += 1
        document = self._document(3)
        return self._sent("bad", document, "quarantine", spoil(document), code)

    def _at_odds(self, kind: str) -> list[Sent]:
        """Two batches that share a transaction, over two contents: one can be signed, and only one."""
        first, second = self._document(2), self._document(2)
        shared = first["transactions"][0]["transaction_id"]
        second["transactions"][1] = self._transaction(shared)
        pair = f"{first['batch_id']}/{second['batch_id']}"
        if kind == "rival":
            return [self._sent(kind, document, "either", pair=pair) for document in (first, second)]
        return [
            self._sent(kind, first, "out", pair=pair),
            self._sent(kind, second, "quarantine", code="transaction_conflict", pair=pair),
        ]

    def _sent(
        self, kind: str, document: Document, expect: Expect, body: str | None = None, code: str = "", pair: str = ""
    ) -> Sent:
        if body is None:
            body = json.dumps(document, ensure_ascii=self._random.random() < 0.5)
        return Sent(document["batch_id"], kind, expect, code, pair, f"G-{self._random.randrange(_GROUPS)}", body)
