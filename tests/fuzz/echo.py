"""Checks more for schemathesis: no refusal quotes its request, and no answer holds the PIN; and what it cannot know."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response

import signer
from tests.canaries import found_in, pin_in

PIN_FILE: Final = "FUZZ_PIN_FILE"
"""Names the file whose PIN no answer may hold: in the environment it would be for everybody to read."""
SHORTEST: Final = 6
"""Characters: whatever is shorter may stand in an answer by chance."""
_REFUSED: Final = 400
"""The least status of a refusal."""
_OURS: Final = frozenset({"request_id", "audit_id"})
_NAMES: Final = frozenset({"reference", "transaction_id"})
"""Well-formed names of the caller's own come back with its results."""

_SOURCES: Final = sorted(Path(signer.__file__).parent.rglob("*.py"))
_WORDS: Final = "\n".join(file.read_text(encoding="utf-8") for file in _SOURCES)
"""Of ours, though a request may hold them: hypothesis takes words from the sources that it finds."""
CANARY: Final = "a canary, a canary"
_SAFE_INTEGER: Final = 2**53 - 1


@schemathesis.hook
def filter_body(_context: HookContext, body: Any) -> bool:
    """Leave doubles beyond 2^53-1 to others: they are taken, as RFC 8785 has it, where integers of that size are not.

    JSON Schema has one kind of number for both.
    """
    return all(abs(number) <= _SAFE_INTEGER for number in _doubles(body))


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], **_options: Any) -> None:
    """Let every other body that is wrong be wrong in words that are known again: no schema takes a canary with spaces.

    What schemathesis thinks of itself is often too short to tell. In every other batch that is right one item gets
    those words: it alone is refused, inside an answer that is none.
    """
    if case.meta is None or not isinstance(case.body, dict | list):
        return
    if not crc32(repr(case.body).encode("utf-8", "replace")) % 2:
        return
    is_wrong = case.meta.generation.mode is GenerationMode.NEGATIVE
    case.body = _sung(case.body) if is_wrong else _with_a_wrong_item(case.body)


def _with_a_wrong_item(body: Any) -> Any:
    match body:
        case {"transactions": [*others, dict(last)]}:
            return {**body, "transactions": [*others, {**_sung(last), "transaction_id": CANARY}]}
        case _:
            return body


def _sung(value: Any) -> Any:
    """Put the canary in the place of each text but the key's name, which lets it get further."""
    if isinstance(value, dict):
        return {name: member if name == "key" and member else _sung(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_sung(member) for member in value]
    return CANARY if isinstance(value, str) else value


@schemathesis.check
def no_echo(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Look for every text of the request in what is said about its refusal, or that of one item of a batch.

    But for words of our own.
    """
    is_refused = response.status_code >= _REFUSED
    refusals = _document_in(response) if is_refused else refused_items(response)
    told = "\n".join(_texts(_without(refusals, _OURS | _NAMES)))
    if is_refused:
        told += "\n".join(value for values in response.headers.values() for value in values if not value.isdigit())
    words = json.dumps(case.operation.schema.raw_schema) + _WORDS
    asked = [case.path_parameters, case.query, dict(case.headers or {}), case.cookies, case.body]
    echoed = [text for text in _texts(asked) if len(text) >= SHORTEST and text in told and text not in words]
    assert not echoed, f"the answer quotes {echoed}"


@schemathesis.check
def no_secret(_ctx: CheckContext, response: Response, _case: Case[Any]) -> None:
    """Look for the PIN in every answer, whatever it answers to."""
    headers = "\n".join(value for values in response.headers.values() for value in values)
    said = {"answer": response.content or b"", "headers": headers.encode("utf-8", "replace")}
    assert not found_in(said, {pin_in(Path(os.environ[PIN_FILE]))}), (
        f"a secret stands in an answer: {response.status_code}"
    )


def refused_items(response: Response) -> list[Any]:
    """Give what an answer that is no refusal says about single items that it refuses."""
    return [] if response.status_code >= _REFUSED else list(_errors_in(_document_in(response)))


def _document_in(response: Response) -> Any:
    (media_type,) = response.headers.get("content-type", [""])
    return json.loads(response.content) if "json" in media_type and response.content else None


def _errors_in(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield from [member] if name == "error" else _errors_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from _errors_in(member)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield str(name)
            yield from _texts(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _texts(member)
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, str):
        yield value


def _doubles(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping | list | tuple):
        for member in value.values() if isinstance(value, Mapping) else value:
            yield from _doubles(member)
    elif isinstance(value, float):
        yield value


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(member, names) for name, member in value.items() if name not in names}
    return [_without(member, names) for member in value] if isinstance(value, list) else value
