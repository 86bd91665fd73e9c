"""The service that tests start is over what the run is to be over."""

import os
from pathlib import Path

from signer.demo.stack import Stack
from softhsm.shim.client import Shim
from tests.conftest import Preset
from tests.service.running import running


def test_the_service_has_loaded_what_the_run_is_over(stack: Stack, preset: Preset) -> None:
    """Over a preset its sessions are the shim's, as the run has set it up."""
    with running(stack) as service:
        shims = [Shim(Path(os.environ["SIGNER_SHIM_SOCKET"])).process(service.pid)] if preset else []
        assert all(shim.counts().sessions > 1 for shim in shims)
        assert (stack.environment.get("SIGNER_SHIM_PRESET") or None) == preset
