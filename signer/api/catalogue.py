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
NEVER_ANSWER: Final = frozenset(
    {
        # Of batches out of the queue.
        errors.UnknownSchemaError,
        errors.BatchTooLargeError,
        errors.BatchAbandonedError,
        errors.InvalidPayloadPointerError,
        errors.PayloadNotAllowedError,
        errors.PayloadTooLargeError,
        errors.PayloadMismatchError,
        errors.PayloadAbsentError,
        # Of the start. Its other refusals may come up later, too: the PIN is rotated, the token goes away.
        errors.ConfigurationError,
        errors.KeyRefusedError,
        errors.AlreadyRunningError,
        errors.AuditBrokenError,
    }
)
"""What no request can come upon, beside what the other entrance says to itself and how handshakes fail."""
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
    never_answers = (
        kind in NEVER_ANSWER or kind.__module__.startswith(_ONLY_IN_QUEUE) or issubclass(kind, HandshakeError)
    )
    # The first paragraph is for everybody, the rest for who reads the code.
    meaning = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split()).replace("|", "\\|")
    return Entry(kind.code, None if never_answers else status_of(kind), kind.retryable, meaning, kind.remedy)
