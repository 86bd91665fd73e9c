"""A short round of the fuzzer of `make fuzz`, for every parser; and that there is no parser without."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from signer.errors import InvalidInputError, UnavailableError
from tests.fuzz.mutations import CANARY, anything
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import PARSERS
from tests.fuzz.places import OMITTED, lines_run_by, places


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40, deadline=None)
@given(choice=st.data())
def test_a_parser_gives_a_value_or_its_own_error(name: str, choice: st.DataObject) -> None:
    """Nothing else comes out, and no error quotes what came in."""
    data = choice.draw(PARSERS[name].inputs() | anything())
    assert PARSERS[name].check(data) in {"read", "refused"}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=1)
@given(data=st.just(b""))
@example(data=f'{{"{CANARY}": 1}}'.encode())
@example(data=f'{{"key": "settlement", "payload": "{CANARY}"}}'.encode())
@example(data=f"{CANARY} = 1".encode())
@example(data=b"[" * 9000)
@example(data=b'{"a": ' + b"9" * 5000 + b"}")
@example(data=b"a = " + b"9" * 5000)
@example(data=b"\xff\xfe")
def test_what_once_did_harm_does_none(name: str, data: bytes) -> None:
    """Depth, digits, encodings, and names that could be quoted."""
    assert PARSERS[name].check(data) in {"read", "refused"}


@pytest.mark.parametrize("name", PARSERS)
def test_its_specimens_are_good(name: str) -> None:
    """What is fuzzed begins beyond the first check: each specimen is read."""
    parser = PARSERS[name]
    assert {parser.check(specimen) for specimen in parser.specimens} == {"read"}


def test_every_place_that_decodes_is_fuzzed_or_says_why_not() -> None:
    """A new parser has to be listed in `PARSERS`, or in `OMITTED` with its reason."""

    def read_all() -> None:
        for parser in PARSERS.values():
            for specimen in parser.specimens:
                parser.check(specimen)

    run = lines_run_by(read_all)
    found = list(places())
    unread = [place for place in found if run.isdisjoint((place.file, line) for line in place.lines)]
    assert [f"{place.name}, line {place.first}" for place in unread if place.omission is None] == []
    assert set(OMITTED) == {place.omission for place in found} - {None}


def test_a_check_fails_where_a_parser_breaks_its_promise() -> None:
    """By an error of another kind, and by one that quotes."""

    def quote(data: bytes) -> None:
        raise InvalidInputError(data.decode())

    with pytest.raises(ZeroDivisionError):
        Parser(lambda _data: 1 // 0, (), (InvalidInputError,)).check(b"")
    with pytest.raises(InvalidInputError):
        Parser(quote, (), (UnavailableError,)).check(b"")
    with pytest.raises(AssertionError):
        Parser(quote, (), (InvalidInputError,)).check(f"it is {CANARY}".encode())
    assert Parser(quote, (), (InvalidInputError,)).check(b"something else") == "refused"
