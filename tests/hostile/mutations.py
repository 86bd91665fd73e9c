"""Hostile messages that nobody thought of: hypothesis makes them up, and the corpus is bent until it breaks."""

import json
import random
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from tests.hostile.corpus import good, small
from tests.hostile.hostile import Hostile

_SMALL: Final = tuple(small())
_IDENTIFIERS: Final = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}", fullmatch=True)
_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_TRANSACTIONS: Final = st.fixed_dictionaries(
    {"transaction_id": _IDENTIFIERS},
    optional={"message": st.dictionaries(st.text(max_size=8), _VALUES, max_size=3) | _VALUES, "payload": _VALUES},
)
_BATCHES: Final = st.fixed_dictionaries(
    {"schema": st.just("settlement-batch/1"), "batch_id": _IDENTIFIERS, "key": st.just("settlement")},
    optional={"transactions": st.lists(_TRANSACTIONS, max_size=3) | _VALUES, "algorithm": _VALUES, "surplus": _VALUES},
)


def anything() -> st.SearchStrategy[Hostile]:
    """Give a strategy for all of them."""
    return st.one_of(
        st.builds(bent, st.integers(0, 1 << 62)),
        st.sampled_from(_SMALL),
        (_VALUES | _BATCHES).map(lambda value: Hostile("made up", json.dumps(value).encode())),
        _BATCHES.map(lambda value: Hostile("made up, not ASCII", _dumps(value))),
        st.binary(max_size=40).map(lambda octets: Hostile("octets", octets)),
    )


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


def bent(seed: int) -> Hostile:
    """Bend something good, mostly, in one place or a few."""
    dice = random.Random(seed)  # noqa: S311 - a seed is what makes it come again
    content = json.dumps(good(seed, dice.randint(1, 3))).encode()
    if dice.random() < 0.3:
        content = dice.choice(_SMALL).content[:5000]
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        content = dice.choice(_BENDS)(content, dice)
    return Hostile("bent", content)


def _flip(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content) + 1)
    return content[:place] + bytes([dice.randrange(32, 127)]) + content[place + 1 :]


def _cut(content: bytes, dice: random.Random) -> bytes:
    start, end = sorted((dice.randrange(len(content) + 1), dice.randrange(len(content) + 1)))
    return content[:start] + content[end:]


def _double(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    piece = content[start : start + dice.randrange(1, 60)]
    return content[:start] + piece + content[start:]


def _insert(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(content) + 1)
    return content[:place] + dice.choice(_PIECES) + content[place:]


def _replace(content: bytes, dice: random.Random) -> bytes:
    old, new = dice.choice(_SWAPS)
    return content.replace(old, new, dice.choice((1, -1)))


def _raw(content: bytes, dice: random.Random) -> bytes:
    # Seldom: what is not UTF-8 can only come by way of S3.
    return _flip(content, dice) if dice.random() < 0.9 else content + bytes([dice.randrange(128, 256)])


_BENDS: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (_flip, _cut, _double, _insert, _replace, _raw)
_PIECES: Final = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"null",
        b"-",
        b"1e999",
        b"9" * 30,
        b" " * 50,
    ),
    *(b"[" * 120, b'{"a":' * 120, '"\u202e"'.encode(), b'"a":1,"a":1', b"NaN", b"//", b"\n\t", b"</x>", b"&a;", b"%s"),
)
_SWAPS: Final = (
    *((b"settlement-batch/1", b"settlement-batch/2"), (b'"settlement"', b'"payout"'), (b'"message"', b'"payload"')),
    *((b'"batch_id"', b'"transactions"'), (b"1250.00", b"\\ud800"), (b"1.5", b"1e400"), (b"null", b"[]"), (b"[", b"{")),
    *(
        (b'"x"', b'"n"'),
        (b"HOSTILE", b"hostile "),
        (b'": ', b'" :'),
        (b'"key"', b'"Key"'),
        (b"1.5", b"9007199254740993"),
    ),
)
