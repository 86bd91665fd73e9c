"""The C program that measures what a module can do."""

import os
from pathlib import Path

import pytest

from loadtest.limit import measure_limit
from signer.demo.stack import Token
from signer.errors import UnavailableError
from softhsm.shim.client import LIBRARY, Shim
from tests.hsm.conftest import GOOD_LABEL


def test_it_signs_with_as_many_threads_as_it_is_told(token: Token) -> None:
    """Rate, signatures and seconds belong together, and signing took time."""
    limit = measure_limit(token.module, token, GOOD_LABEL, {}, threads=3, seconds=0.2)
    assert limit.threads == 3
    assert limit.signatures > 0
    assert limit.rate == pytest.approx(limit.signatures / limit.seconds, rel=0.01)
    assert 0 < limit.p50_ms <= limit.p99_ms <= limit.p999_ms


def test_no_call_that_failed_counts_as_a_signature(token: Token, tmp_path: Path) -> None:
    """The first answer that is not CKR_OK ends it without a figure."""
    shim = Shim(tmp_path / "shim")
    shim.at_start().fail("C_Sign", "CKR_DEVICE_ERROR", times=1)
    module = Path(os.environ.get("SIGNER_SHIM_MODULE", token.module))
    with pytest.raises(UnavailableError, match="C_Sign"):
        measure_limit(LIBRARY, token, GOOD_LABEL, shim.environment(module), threads=1, seconds=0.1)


def test_another_key_is_not_measured_by_mistake(token: Token) -> None:
    """A label that is not there ends it."""
    with pytest.raises(UnavailableError, match="no private key"):
        measure_limit(token.module, token, "no-such-key", {}, threads=1, seconds=0.1)
