"""Inputs that are nearly right: a good specimen, bent in a few places, in its octets or in what they stand for."""

import base64
import binascii
import json
import textwrap
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st

CANARY: Final = "Canary7Canary"
"""Stands in inputs, and in no error."""
MAX_BYTES: Final = 65_536
"""No input is larger, so no parser works or keeps more than that asks for."""
_PIECES: Final = (
    *(b"\0", b"\xff", b"\xc3\x28", b'"', b"\\", b"\\ud800", b"%", b"%00", b"\r\n", b"=", b"null", b"NaN", b"1e999"),
    *(b"9" * 30, b"9" * 5000, b"1e" + b"9" * 20, b"[" * 3000, b'{"a":' * 3000, b"-0", b"0x", b"_", b"+1", b" " * 9),
    *(CANARY.encode(), CANARY.encode() + b"\n", b'"a":1,"a":1,', b"-----BEGIN CERTIFICATE-----\n", b"#", b"."),
    "\u0663".encode(),  # a decimal digit, though not one of ASCII
)
_WORDS: Final = (CANARY, "", "\ud800", "A" * 600, "AA==", "A" * 43 + "=", "0", "-1", "1e999", "9" * 5000, "[" * 9000)
_LEAVES: Final = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(_WORDS)
)
VALUES: Final = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just(CANARY), inner, max_size=3)
    ),
    max_leaves=8,
)
_PEM: Final = b"-----BEGIN "


def near(specimens: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Give a strategy for what is near one of these, in octets or in meaning."""
    seeds = st.sampled_from(list(specimens))
    ways = [seeds.flatmap(_bent)]
    ways += [seeds.map(read).flatmap(_changed).map(write) for read, write in _FORMS if all(map(read, specimens))]
    if all(specimen.startswith(_PEM) for specimen in specimens):
        ways += [seeds.flatmap(lambda pem: _bent(der_of(pem)).map(lambda der: pem_of(label_of(pem), der)))] * 2
    return st.one_of(*ways).map(lambda data: data[:MAX_BYTES])


def anything() -> st.SearchStrategy[bytes]:
    """Give a strategy for what is near nothing."""
    return st.binary(max_size=400) | VALUES.map(json.dumps).map(str.encode) | st.text().map(_utf8)


@st.composite
def _bent(draw: st.DrawFn, specimen: bytes) -> bytes:
    """Flip bits, cut, repeat, and put in what does harm elsewhere: in one place, mostly."""
    data = specimen
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 4)))):
        bend, place = draw(st.sampled_from(_BENDS)), draw(st.integers(0, max(0, len(data) - 1)))
        data = bend(draw, data, place)
    return data


def _flip(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[:place] + bytes([(*data[place : place + 1], 0)[0] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]


def _overwrite(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[:place] + draw(st.binary(max_size=4)) + data[place + draw(st.integers(0, 4)) :]


def _truncate(_draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[:place]


def _cut(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[:place] + data[place + draw(st.integers(1, 40)) :]


def _repeat(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[: place + draw(st.integers(1, 60))] + data[place:]


def _splice(draw: st.DrawFn, data: bytes, place: int) -> bytes:
    return data[:place] + draw(st.sampled_from(_PIECES)) + data[place:]


_BENDS: Final[tuple[Callable[[st.DrawFn, bytes, int], bytes], ...]] = (
    *(_flip, _flip, _overwrite, _overwrite, _truncate, _cut, _repeat, _splice),
)


@st.composite
def _changed(draw: st.DrawFn, document: Any) -> Any:
    """Put something else in the place of one value, leave a member out, or add one."""
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    if isinstance(document, list):
        place = draw(st.integers(0, len(document) - 1))
        twice = [document[place]] if draw(st.booleans()) else []
        return [*document[:place], draw(_changed(document[place])), *twice, *document[place + 1 :]]
    name = draw(st.sampled_from(sorted(document)))
    rest = {other: value for other, value in document.items() if other != name}
    kind = draw(st.sampled_from(("change", "change", "change", "leave out", "add", "rename")))
    if kind == "leave out":
        return rest
    if kind == "rename":
        return {**rest, draw(st.sampled_from((CANARY, name + "_", "", name.upper()))): document[name]}
    if kind == "add":
        return {**document, draw(st.just(CANARY) | st.text(max_size=6)): draw(VALUES)}
    return {**document, name: draw(_changed(document[name]))}


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _to_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _from_toml(data: bytes) -> Any:
    try:
        return tomllib.loads(data.decode())
    except ValueError:
        return None


def _to_toml(document: Any) -> bytes:
    members = document.items() if isinstance(document, dict) else [("value", document)]
    return _utf8("\n".join(f"{json.dumps(name)} = {_inline(value)}" for name, value in members))


def _inline(value: Any) -> str:
    """Write a value in one line of TOML; what TOML has no word for, as JSON has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_inline(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, default=str)


_FORMS: Final = ((_from_json, _to_json), (_from_toml, _to_toml))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def label_of(pem: bytes) -> str:
    """Say what the first block of PEM calls itself."""
    return pem.split(b"\n", 1)[0].decode().removeprefix(_PEM.decode()).removesuffix("-----")


def der_of(pem: bytes) -> bytes:
    """Give what the first block of PEM holds."""
    try:
        return base64.b64decode(b"".join(pem.split(b"-----END", 1)[0].split(b"\n")[1:]))
    except binascii.Error:
        return b""


def pem_of(label: str, der: bytes) -> bytes:
    """Write DER as PEM (RFC 7468)."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()
