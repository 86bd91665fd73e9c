"""Who did something by hand, and why: words that end up in the audit log."""

import re
from typing import Final

from signer.errors import InvalidInputError

PERSON_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9@._-]{0,63}$"
MAX_REASON: Final = 200


def check_words(by: str, reason: str) -> None:
    """Return if both are fit for the record; raises `InvalidInputError`."""
    if not re.fullmatch(PERSON_PATTERN, by):
        msg = "a person is named by up to 64 letters, digits and @ . _ -"
        raise InvalidInputError(msg)
    if not reason.strip() or len(reason) > MAX_REASON or not reason.isprintable():
        msg = f"the reason is up to {MAX_REASON} printable characters"
        raise InvalidInputError(msg)
