"""The catalogue of error codes: what each means and what to do, read off the error classes themselves."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

from signer import errors
from signer.api.handshake_errors import HandshakeError
from signer.api.problems import status_of
from signer.errors import SignerError

_ONLY_IN_QUEUE: Final = "signer.sqs"
_ONLY_IN_BATCHES: Final = frozenset(
    {
        errors.UnknownSchemaError,
        errors.BatchTooLargeError,
        errors.BatchAbandonedError,
        errors.InvalidPayloadPointerError,
        errors.PayloadNotAllowedError,
        errors.PayloadTooLargeError,
        errors.PayloadMismatchError,
        errors.PayloadAbsentError,
    }
)
_HTML_HEAD: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Signer: error codes</title>'
    '<link rel="stylesheet" href="/docs/assets/errors.css"><h1>Error codes</h1>'
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One code."""

    code: str
    status: int | None
    """Over HTTP; None for what never answers a request."""
    retryable: bool
    meaning: str
    remedy: str


def entries() -> list[Entry]:
    """Give every code of the errors that are loaded, in order; in the service and its documents those are all."""
    return sorted(map(_entry, kinds()), key=lambda entry: entry.code)


def kinds() -> list[type[SignerError]]:
    """Give every error of ours that has a code of its own."""
    return [kind for kind in _from(SignerError) if "code" in vars(kind)]


def status_in(kind: type[SignerError]) -> int | None:
    """Give the status that the catalogue has for it: none for what no request can come upon."""
    return None if _never_answers(kind) else status_of(kind)


def markdown() -> str:
    """Give the table of docs/errors.md."""
    rows = [
        f'| <a id="{entry.code}"></a>`{entry.code}` | {entry.status or "-"} | {"yes" if entry.retryable else "no"}'
        f" | {entry.meaning} | {entry.remedy} |"
        for entry in entries()
    ]
    head = ("| code | status | retryable | meaning | what to do |", "| --- | --- | --- | --- | --- |")
    return "\n".join([*head, *rows, ""])


def html() -> bytes:
    """Give the page that a problem's `type` leads to."""
    rows = "".join(_row(entry) for entry in entries())
    titles = "".join(f"<th>{title}</th>" for title in ("code", "status", "retryable", "meaning", "what to do"))
    return f"{_HTML_HEAD}<table><tr>{titles}</tr>{rows}</table></html>".encode()


def _row(entry: Entry) -> str:
    cells = (entry.status or "-", "yes" if entry.retryable else "no", escape(entry.meaning), escape(entry.remedy))
    return f'<tr id="{entry.code}"><td><code>{entry.code}</code>' + "".join(f"<td>{cell}" for cell in cells)


def _from(kind: type[SignerError]) -> Iterator[type[SignerError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__.startswith("signer."):
            yield from _from(below)


def _entry(kind: type[SignerError]) -> Entry:
    # The first paragraph is for everybody, the rest for who reads the code.
    meaning = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).replace("|", "\\|")
    return Entry(kind.code, status_in(kind), kind.retryable, meaning, kind.remedy)


def _never_answers(kind: type[SignerError]) -> bool:
    # Refusals to start may come up later, too: to who asks the HSM is unavailable then (`hsm/keyring.py`).
    refuses_to_start = issubclass(kind, errors.ConfigurationError) and kind.__module__ == errors.__name__
    of_queue = kind in _ONLY_IN_BATCHES or kind.__module__.startswith(_ONLY_IN_QUEUE)
    return refuses_to_start or of_queue or issubclass(kind, HandshakeError)
