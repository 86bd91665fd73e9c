"""Every code that the service can say has its entry in the catalogue, with a meaning and something to do."""

from pathlib import Path

import pytest

import signer.wiring  # loads every error there is
from signer.api import catalogue

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_document_is_what_the_code_says() -> None:
    """On failure, this is what to put there."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert signer.wiring is not None
    assert text[text.index("| code |") :] == catalogue.markdown()


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry.code)
def test_an_entry_says_what_it_means_and_what_to_do(entry: catalogue.Entry) -> None:
    """A sentence each."""
    assert entry.meaning.endswith(".")
    assert entry.remedy.endswith((".", "?"))


def test_every_code_belongs_to_one_error() -> None:
    """Two errors with one code could not be told apart."""
    codes = [kind.code for kind in catalogue.kinds()]
    assert len(codes) == len(set(codes))
