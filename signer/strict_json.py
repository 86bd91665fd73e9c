"""JSON read so that everyone reads the same: I-JSON (RFC 7493) in, RFC 8785 canonical bytes out."""

import json
import math
import re
import sys
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

import rfc8785

from signer.errors import DuplicateMemberError, InvalidJsonError

_MAX_SAFE_INTEGER: Final = 2**53 - 1
_MAX_INTEGER_DIGITS: Final = 17
_MAX_FLOAT_DIGITS: Final = 17
_MAX_DEPTH: Final = 100
_EXPONENT: Final = re.compile("[eE]")
# Made once: `json.dumps` makes a new one at each call, which for small values is most of the work.
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# What RFC 8785 prescribes, if only names are ASCII (it sorts by UTF-16 units, Python by code points) and no number is
# a float (it writes those as ECMAScript does).
_ENCODE_SORTED: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True
).encode

_TOO_DEEP: Final = f"the document is nested deeper than {_MAX_DEPTH} levels"


def parse(body: bytes) -> Any:
    """Parse UTF-8 JSON; raises `InvalidJsonError` or `DuplicateMemberError`, whose messages never quote the input."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_members,
            parse_int=_safe_integer,
            parse_float=_faithful_float,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        msg = "the body is not UTF-8"
        raise InvalidJsonError(msg) from None
    except json.JSONDecodeError as error:
        msg = f"the body is not JSON (line {error.lineno}, column {error.colno})"
        raise InvalidJsonError(msg) from None
    except RecursionError:
        raise InvalidJsonError(_TOO_DEEP) from None
    _refuse_depth(value)
    return value


def canonical(value: Any) -> bytes:
    """Give the RFC 8785 (JCS) form of a parsed value; raises `InvalidJsonError` where it has none."""
    try:
        return _ENCODE_SORTED(value).encode("utf-8") if _is_simple(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        # What the parser lets through and JCS does not: lone surrogates (RFC 8785, section 3.2.2.2).
        msg = "the document has no canonical form (RFC 8785): it holds a lone surrogate, or no number"
        raise InvalidJsonError(msg) from None


def _is_simple(value: Any) -> bool:
    """Tell whether sorting by code points and Python's own writing of values give RFC 8785's form."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return abs(int(value)) <= _MAX_SAFE_INTEGER
    if kind is dict:
        return all(type(name) is str and name.isascii() and _is_simple(member) for name, member in value.items())
    return kind is list and all(map(_is_simple, value))


def dumps(value: Any) -> bytes:
    """Serialise compactly as UTF-8, members in their given order; the same value always gives the same bytes."""
    return _ENCODE(value).encode("utf-8")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        msg = "an object names the same member twice"
        raise DuplicateMemberError(msg)
    return members


def _safe_integer(text: str) -> int:
    # The length is checked first: Python's own limit on digits raises a ValueError, and long before it int() is slow.
    if len(text) <= _MAX_INTEGER_DIGITS:
        number = int(text)
        if abs(number) <= _MAX_SAFE_INTEGER:
            return number
    msg = "an integer lies beyond 2^53-1; send it as a string"
    raise InvalidJsonError(msg)


def _faithful_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number lies beyond the range of a double"
        raise InvalidJsonError(msg)
    # 17 digits tell every double from its neighbours (IEEE 754); more of them say what no double holds.
    digits = _EXPONENT.split(text)[0].replace(".", "").lstrip("-").strip("0")
    if len(digits) > _MAX_FLOAT_DIGITS or (digits and not _keeps_magnitude(text, number)):
        msg = "a number does not fit a double without loss; send it as a string"
        raise InvalidJsonError(msg)
    return number


def _keeps_magnitude(text: str, number: float) -> bool:
    """Tell whether a number that is not zero is safe: where doubles are sparse, only their shortest form is."""
    if sys.float_info.min <= abs(number) <= _MAX_SAFE_INTEGER:
        return True
    shortest = repr(number)
    # Without an exponent it is an integer beyond 2^53-1, with ".0" or without; `dumps` must not write one either.
    if abs(number) > 1 and not (_EXPONENT.search(text) and _EXPONENT.search(shortest)):
        return False
    try:
        return Decimal(text) == Decimal(shortest)
    except InvalidOperation:  # an exponent of a great many digits
        return False


def _refuse_constant(_text: str) -> NoReturn:
    msg = "NaN and Infinity are not JSON"
    raise InvalidJsonError(msg)


def _refuse_depth(value: Any) -> None:
    depth, level = 0, _containers([value])
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise InvalidJsonError(_TOO_DEEP)
        level = [inner for outer in level for inner in _containers(outer)]


def _containers(values: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    members = values.values() if isinstance(values, dict) else values
    return [member for member in members if isinstance(member, dict | list)]
