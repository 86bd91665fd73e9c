"""The service as its operators run it: a process of its own, over a real token and a real SQS endpoint."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from signer.demo.stack import Emulator, Stack, Token, provision
from softhsm.shim.client import LIBRARY, Shim
from tests.conftest import SLOW, Preset


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One SQS endpoint for the whole run."""
    with closing(Emulator(tmp_path_factory.mktemp("emulator"))) as running:
        yield running


@pytest.fixture(scope="session")
def service_token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """One token for the whole run."""
    return provision(tmp_path_factory.mktemp("service") / "token")


@pytest.fixture
def stack(tmp_path: Path, emulator: Emulator, service_token: Token) -> Stack:
    """Queues, settings and an empty directory; messages come back soon after their worker died."""
    made = Stack(tmp_path, emulator, service_token)
    made.environment |= {"SIGNER_SQS__VISIBILITY_TIMEOUT_S": "5", "SIGNER_SQS__WAIT_S": "1"}
    return made


@pytest.fixture
def shim(stack: Stack, softhsm_module: Path, preset: Preset, pytestconfig: pytest.Config) -> Iterator[Shim]:
    """The service's module fails when it is told to; it is like CloudHSM if the whole run is."""
    with TemporaryDirectory(prefix="shim") as directory:  # a socket's path must be short
        shim = Shim(Path(directory))
        slow = pytestconfig.getoption("preset") == SLOW
        stack.environment |= shim.environment(softhsm_module, preset, latency=slow)
        stack.environment["SIGNER_HSM__MODULE"] = str(LIBRARY)
        yield shim


Demo = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """One run of the demo, as `make demo` does it: its directory, and what it said."""
    directory = tmp_path_factory.mktemp("demo") / "demo"
    command = [sys.executable, "-m", "signer", "demo", "--dir", str(directory)]
    return directory, subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """For a socket: its path must be short."""
    with TemporaryDirectory(prefix="shim") as directory:
        yield Path(directory)
