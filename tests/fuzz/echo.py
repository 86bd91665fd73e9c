"""One check more for schemathesis: no problem document quotes the request that it refuses; and what it cannot know."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import schemathesis
from schemathesis import Case, CheckContext, GenerationMode, HookContext, Response

import signer

SHORTEST: Final = 6
"""Characters: whatever is shorter may stand in an answer by chance."""
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

    What schemathesis thinks of itself is often too short to tell.
    """
    is_wrong = case.meta is not None and case.meta.generation.mode is GenerationMode.NEGATIVE
    if is_wrong and isinstance(case.body, dict | list) and crc32(repr(case.body).encode("utf-8", "replace")) % 2:
        case.body = _sung(case.body)


def _sung(value: Any) -> Any:
    """Put the canary in the place of each text but the key's name, which lets it get further."""
    if isinstance(value, dict):
        return {name: member if name == "key" and member else _sung(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_sung(member) for member in value]
    return CANARY if isinstance(value, str) else value


@schemathesis.check
def no_echo(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Look for every text of the request in what is said about its refusal, but for words of our own."""
    if response.status_code < 400:
        return
    told = "\n".join(_texts(_without(json.loads(response.content or b"null"), _OURS | _NAMES)))
    told += "\n".join(value for values in response.headers.values() for value in values if not value.isdigit())
    words = json.dumps(case.operation.schema.raw_schema) + _WORDS
    asked = [case.path_parameters, case.query, dict(case.headers or {}), case.cookies, case.body]
    echoed = [text for text in _texts(asked) if len(text) >= SHORTEST and text in told and text not in words]
    assert not echoed, f"the answer quotes {echoed}"


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
