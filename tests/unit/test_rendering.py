"""A signed batch is rendered once, before its signatures are there, and comes out as if it had been rendered whole."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from signer import strict_json
from signer.rendering import form_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS | st.sampled_from(["\ufffe", "\uffff", 'a"\\\ufffe', "\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
TRANSACTIONS = st.fixed_dictionaries({"transaction_id": TEXTS, "message": VALUES})
SIGNATURES = st.dictionaries(TEXTS, TEXTS, max_size=3)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    """A batch with its members in any order, and with or without the one that is optional."""
    members = {
        "schema": "settlement-batch/1",
        "batch_id": draw(TEXTS),
        "key": draw(TEXTS),
        "transactions": draw(st.lists(TRANSACTIONS, min_size=1, max_size=4)),
    }
    if draw(st.booleans()):
        members["algorithm"] = draw(TEXTS)
    return {name: members[name] for name in draw(st.permutations(list(members)))}


@given(batches(), st.data())
def test_it_is_the_same_as_rendering_it_whole(document: dict[str, Any], data: st.DataObject) -> None:
    """Byte for byte what the serialiser gives for the whole document: a batch that comes again comes the same."""
    count = len(document["transactions"])
    signatures = data.draw(st.lists(SIGNATURES, min_size=count, max_size=count))
    signed = [
        {**transaction, "signature": signature}
        for transaction, signature in zip(document["transactions"], signatures, strict=True)
    ]
    whole = strict_json.dumps({**document, "schema": "signed-settlement-batch/1", "transactions": signed}).decode()
    rendered = form_of(document).fill(signatures).decode()
    assert rendered == whole.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    assert list(json.loads(rendered)) == list(document)


@given(batches(), SIGNATURES)
def test_its_size_is_known_before_it_is_signed(document: dict[str, Any], signature: dict[str, str]) -> None:
    """The size that is reckoned with a signature of the right length is exact to the byte."""
    form = form_of(document)
    assert form.size_bytes(signature) == len(form.fill([signature] * len(document["transactions"])))
