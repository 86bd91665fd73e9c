"""What is not I-JSON is refused, without a word of it in the refusal."""

import json
import math
from typing import Any, Final

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from signer import strict_json
from signer.errors import DuplicateMemberError, InvalidInputError, InvalidJsonError

SAFE_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 2**53 <= abs(x) < 1e16)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | SAFE_INTEGERS | FLOATS | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidJsonError),
        (b"{canary", InvalidJsonError),
        (b'{"a":1}canary', InvalidJsonError),
        (b'\xef\xbb\xbf{"canary":1}', InvalidJsonError),
        ('{"canary":1}'.encode("utf-16"), InvalidJsonError),
        (b'"\xff canary"', InvalidJsonError),
        (b'{"canary":12345678901234567.89}', InvalidJsonError),
        (b'{"canary":0.123456789012345678}', InvalidJsonError),
        (b'{"canary":9007199254740993.0}', InvalidJsonError),
        (b'{"canary":-9007199254740992.0}', InvalidJsonError),
        (b'{"canary":9007199254740993e0}', InvalidJsonError),
        (b'{"canary":9.007199254740994e15}', InvalidJsonError),
        (b'{"canary":90071992547409930e0}', InvalidJsonError),
        (b'{"canary":1.2345678901234567e21}', InvalidJsonError),
        (b'{"canary":1e-400}', InvalidJsonError),
        (b'{"canary":-0.0001e-400}', InvalidJsonError),
        (b'{"canary":1.23e-323}', InvalidJsonError),
        (b'{"canary":1e-' + b"9" * 5000 + b"}", InvalidJsonError),
        (b'{"canary":NaN}', InvalidJsonError),
        (b'{"canary":-Infinity}', InvalidJsonError),
        (b'{"canary":1e999}', InvalidJsonError),
        (b'{"canary":9007199254740992}', InvalidJsonError),
        (b'{"canary":-9007199254740992}', InvalidJsonError),
        (b'{"canary":' + b"9" * 5000 + b"}", InvalidJsonError),
        (b'{"canary":1,"canary":1}', DuplicateMemberError),
        (b'[[{"canary":{"a":1,"\\u0061":2}}]]', DuplicateMemberError),
        (b"[" * 101 + b"]" * 101, InvalidJsonError),
        (b"[" * 100_000 + b"]" * 100_000, InvalidJsonError),
        (b'{"canary":' * 100_000, InvalidJsonError),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, error: type[InvalidInputError]) -> None:
    """Each of these is refused by its own error, and the message quotes nothing of the input."""
    with pytest.raises(error) as caught:
        strict_json.parse(body)
    assert "canary" not in str(caught.value)


def test_limits_are_inclusive() -> None:
    """The largest exact integer and the deepest allowed nesting are read."""
    assert strict_json.parse(b"[9007199254740991,-9007199254740991]") == [2**53 - 1, 1 - 2**53]
    assert strict_json.parse(b"[" * 100 + b"]" * 100) is not None


@pytest.mark.parametrize("body", [rb'{"a":"\ud800"}', rb'{"\udfff":1,"b":2}', rb'["\ud83d x"]'])
def test_a_lone_surrogate_has_no_canonical_form(body: bytes) -> None:
    """A string that is no Unicode text cannot be signed."""
    value = strict_json.parse(body)
    with pytest.raises(InvalidJsonError):
        strict_json.canonical(value)


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    """Whatever has a canonical form survives being written and read, with the same canonical form."""
    again = strict_json.parse(strict_json.dumps(value))
    assert again == value
    assert strict_json.canonical(again) == rfc8785.dumps(value)


# What tells RFC 8785 from Python's sorted JSON: names that UTF-16 sorts otherwise, numbers that ECMAScript writes
# otherwise, and what either of them escapes.
AWKWARD_NAMES: Final = ("", "a", "B", "\ue000", "\U00010000", "\x7f", "\r", 'a"', "1")
AWKWARD: Final = st.recursive(
    st.sampled_from((1.0, -0.0, 1e16, 1e21, 1e-7, 0, -1, 2**53 - 1, True, None, *AWKWARD_NAMES, "\x00\x1f\b\\/\u2028")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(AWKWARD_NAMES), inner, max_size=6),
    max_leaves=12,
)


@given(AWKWARD)
def test_the_fast_way_to_the_canonical_form_is_taken_only_where_it_leads_there(value: Any) -> None:
    """Byte for byte what the reference implementation gives, whatever stands in the document."""
    assert strict_json.canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [2**53, -(2**53), [{"a": 2**70}]])
def test_an_integer_beyond_a_double_has_no_canonical_form(value: Any) -> None:
    """Neither way writes what RFC 8785 cannot."""
    with pytest.raises(InvalidJsonError):
        strict_json.canonical(value)


@given(st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    """No input raises anything but our own refusals."""
    try:
        value = strict_json.parse(body)
        strict_json.canonical(value)
    except InvalidInputError:
        return
    assert value == json.loads(body)


def test_canonical_form_is_that_of_rfc_8785() -> None:
    """The example of RFC 8785, section 3.2.2 comes out as printed there."""
    body = rb"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    assert (
        strict_json.canonical(strict_json.parse(body))
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_numbers_keep_their_value() -> None:
    """Numbers are doubles, as RFC 8785 wants them, and -0 is 0."""
    assert strict_json.canonical(strict_json.parse(b"[1.0,-0,1e2,0.1]")) == b"[1,0,100,0.1]"
    assert math.isclose(strict_json.parse(b"0.1"), 0.1)
    assert strict_json.parse(b"[9007199254740991.0,0.10000000000000000000,0e-999,5e-324]") == [
        2**53 - 1,
        0.1,
        0,
        5e-324,
    ]
    assert strict_json.parse(b"[1E30,1e16,1.7976931348623157e308,1.234567890123456e21]")[0] == 1e30
