"""A short round of the fuzzer of `make fuzz`, for every parser."""

import pytest
from hypothesis import example, given, settings

from tests.fuzz.parsers import CANARY, INPUTS, PARSERS, check


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=100, deadline=None)
@given(data=INPUTS)
@example(data=f'{{"{CANARY}": 1}}'.encode())
@example(data=f'{{"key": "settlement", "payload": "{CANARY}"}}'.encode())
def test_a_parser_gives_a_value_or_an_error_of_ours(name: str, data: bytes) -> None:
    """Nothing else comes out, and no error quotes what came in."""
    assert check(name, data) in {"read", "refused"}
