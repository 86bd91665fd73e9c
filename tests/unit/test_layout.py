"""What is left out of the run over CloudHSM's ways has no part in them."""

import re
from pathlib import Path

import pytest

from tests.conftest import WITHOUT_HSM

_OPENS_A_MODULE = re.compile(
    r"^\s*(from|import) (pkcs11|softhsm|signer\.hsm\.(module|connection|keyring|cryptoki))\b", re.MULTILINE
)
FILES = [file for name in WITHOUT_HSM for file in (Path(__file__).parents[1] / name).rglob("*.py")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_module_is_opened_here(file: Path) -> None:
    """Whoever needs one belongs to `tests/hsm` or `tests/service`, which run twice."""
    assert _OPENS_A_MODULE.search(file.read_text(encoding="utf-8")) is None
