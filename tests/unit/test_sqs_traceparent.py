"""Every signed batch belongs to a trace: the one it came with, or one of its own that its copies share."""

import re

import pytest

from signer.sqs.messages import Attributes, string_attribute
from signer.sqs.traceparent import traceparent_of

SHA256 = "0123456789abcdef" * 4
GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


def test_a_trace_is_passed_on() -> None:
    """A valid `traceparent` travels on unchanged, whether it is sampled or not."""
    assert traceparent_of({"traceparent": string_attribute(GIVEN)}, SHA256) == GIVEN


@pytest.mark.parametrize(
    "given",
    ["", "00", GIVEN.upper(), GIVEN + "-00", GIVEN + "\n", GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
     GIVEN.replace("00f067aa0ba902b7", "0" * 16), "ff" + GIVEN[2:]],
)  # fmt: skip
def test_what_is_no_trace_is_replaced(given: str) -> None:
    """Anything else gives way to a new trace, as W3C Trace Context asks for."""
    begun = traceparent_of({"traceparent": string_attribute(given)}, SHA256)
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)
    assert begun == traceparent_of({}, SHA256)


def test_a_new_trace_belongs_to_the_content() -> None:
    """Copies of a batch are in one trace, so that they are equal to the last attribute; other batches are not."""
    assert traceparent_of({}, SHA256) != traceparent_of({}, SHA256[::-1])


def test_a_binary_attribute_is_no_trace() -> None:
    """An attribute of another type under that name is passed over."""
    attributes: Attributes = {"traceparent": {"DataType": "Binary", "BinaryValue": GIVEN.encode()}}
    assert traceparent_of(attributes, SHA256) == traceparent_of({}, SHA256)
