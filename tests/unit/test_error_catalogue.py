"""Every code that the service can say has its entry in the catalogue, with a meaning and something to do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import signer.wiring  # loads every error there is
from signer.api import catalogue, handshake
from signer.api.handshake_errors import HandshakeError
from signer.errors import ConfigurationError

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
SOURCES = sorted((Path(signer.__file__).parent / "api").glob("*.py"))
TELLING = {"Problem": 1, "Refusal": 0}
"""What tells somebody of a code, and in which place of its arguments the code stands."""


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


def spelt_out() -> Iterator[tuple[str, str]]:
    """Every code that is told without an error of ours: where, and which expression stands for it."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TELLING:
                named = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                (code, *_) = named or node.args[TELLING[node.func.id] :]
                yield f"{source.name}, line {node.lineno}", ast.unparse(code)


def test_every_code_that_is_told_is_that_of_an_error() -> None:
    """A problem or a record whose code is made up where it is told would have no entry."""
    places = list(spelt_out())
    assert len(places) >= 4
    # refusals.py sums up what it was told.
    made_up = [(where, code) for where, code in places if not code.endswith(".code")]
    assert [where for where, _ in made_up if not where.startswith("refusals.py")] == []


def test_handshakes_have_their_entries() -> None:
    """No answer carries their codes, unless requests are refused with them, too; audit log and metrics do."""
    entries = {entry.code: entry for entry in catalogue.entries()}
    assert len(handshake.CODES) >= 14
    assert sorted(handshake.CODES - entries.keys()) == []
    assert entries["certificate_missing"].status is None
    assert entries["certificate_revoked"].status == 401
    assert entries["certificate_expired"].status == 401


def test_what_has_no_status_is_nothing_that_the_api_raises() -> None:
    """Its sources name none of these errors, but for refusals to start and for the tables themselves."""
    silent = {kind.__name__ for kind in catalogue.kinds() if catalogue.status_in(kind) is None}
    silent -= {kind.__name__ for kind in catalogue.kinds() if issubclass(kind, ConfigurationError | HandshakeError)}
    sources = {source.name: source.read_text(encoding="utf-8") for source in SOURCES}
    named = {(name, kind) for name, text in sources.items() for kind in silent if kind in text}
    assert {name for name, _ in named} == {"catalogue.py", "problems.py"}
    assert "PayloadAbsentError" in silent
