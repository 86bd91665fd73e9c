"""What the ledger calls a request that names no transaction: after its `Idempotency-Key`, or after nothing."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import Final

from signer.errors import InvalidInputError

HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"
# A string of RFC 8941 (draft-ietf-httpapi-idempotency-key-header); or, as most clients send it, without quotes.
_KEY: Final = re.compile(r'"([!#-\[\]-~]{1,128})"|([!#-\[\]-~]{1,128})')


def stand_in_id(values: Sequence[str], caller: str, index: int | None = None) -> str:
    """Give an id that no caller can name as a transaction (it begins with `~`).

    The same for each request of `caller` with the same `Idempotency-Key` (the header's `values`), and for each item of
    a batch with the same `index`; never the same without a key. Raises `InvalidInputError`.
    """
    if not values:
        return f"~once:{uuid.uuid4().hex}"
    match = _KEY.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        msg = f"{HEADER} is not one string of 1 to 128 visible ASCII characters without quotes and backslashes"
        raise InvalidInputError(msg)
    # Hashed with its caller: what a client makes up is neither stored nor shared between clients.
    name = f"{caller}\n{match[1] or match[2]}" + ("" if index is None else f"\n{index}")
    return "~key:" + hashlib.sha256(name.encode()).hexdigest()
