"""A short round of `make schemathesis`: by whoever is on this machine, and by somebody with a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.api import Round, rounds, run

EXAMPLES = 1
"""Beside those that the checks' own rules demand: missing members, wrong types, other methods."""


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Round]]:
    with rounds(tmp_path_factory.mktemp("api")) as found:
        yield {each.name: each for each in found}


@pytest.mark.parametrize("name", ["loopback", "token"])
def test_the_api_keeps_to_its_description(services: dict[str, Round], tmp_path: Path, name: str) -> None:
    """No 5xx, no status that is not told, no echo; well-formed requests are taken, others refused."""
    assert run(services[name], tmp_path, EXAMPLES) > 300
