"""The test token behind the shim, in this process and in others."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from signer.demo.stack import Token
from softhsm.shim.client import LIBRARY, Shim
from tests.hsm.shim.raw import Client

_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def shim_home(token: Token, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Load the shim into this process, for good; it may be there already, if the whole suite runs over it."""
    if not LIBRARY.is_file():
        pytest.fail(f"{LIBRARY} is not there: make shim", pytrace=False)
    with pytest.MonkeyPatch.context() as patch:
        if "SIGNER_SHIM_SOCKET" not in os.environ:
            for name, value in Shim(tmp_path_factory.mktemp("shim")).environment(token.module).items():
                patch.setenv(name, value)
        assert ctypes.CDLL(str(LIBRARY)).C_GetFunctionList(ctypes.byref(ctypes.c_void_p())) == 0
        yield Path(os.environ["SIGNER_SHIM_SOCKET"])


@pytest.fixture
def shim(shim_home: Path) -> Iterator[Shim]:
    """Speak to the shim in this process: without a preset, and nothing counted yet."""
    here = Shim(shim_home).process(os.getpid())
    here.reset()
    here.preset("none")
    yield here
    here.reset()


OpenClient = Callable[..., Client]


@pytest.fixture
def open_client(token: Token, pin: str, shim: Shim, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenClient]:
    """Log in through the shim; one client at a time, since a process has one module."""
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def open_one(another_pin: str | None = None) -> Client:
            stack.close()
            return stack.enter_context(closing(Client(token.label, another_pin or pin)))

        assert shim.counts().sessions == 0
        yield open_one


@pytest.fixture
def client(open_client: OpenClient) -> Client:
    """Be logged in."""
    return open_client()


class OtherProcess:
    """A process with one session on the token, that does a thing a line; see `user.py`."""

    def __init__(self, token: Token, environment: dict[str, str]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("user.py")), *map(str, (token.label, token.pin_file))],
            env={**os.environ, **token.environment, **environment, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.popen.pid
        self.began = self._answer()

    def ask(self, what: str) -> str:
        """Give the answer, empty if it died."""
        assert self.popen.stdin
        self.popen.stdin.write(what + "\n")
        self.popen.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it."""
        with self.popen:
            self.popen.kill()

    def _answer(self) -> str:
        assert self.popen.stdout
        return self.popen.stdout.readline().strip()


@pytest.fixture
def other_shim(tmp_path: Path) -> Shim:
    """Speak to all of the processes that `start_process` starts."""
    return Shim(tmp_path / "shim")


StartProcess = Callable[..., OtherProcess]


@pytest.fixture
def start_process(token: Token, other_shim: Shim, shim_home: Path) -> Iterator[StartProcess]:
    """Start processes that use the token through the shim; changes to their environment are arguments."""
    del shim_home  # it sees to it that SIGNER_SHIM_MODULE is set
    with ExitStack() as stack:

        def start(using: Token = token, **environment: str) -> OtherProcess:
            plain = other_shim.environment(Path(os.environ["SIGNER_SHIM_MODULE"]))
            return stack.enter_context(closing(OtherProcess(using, plain | environment)))

        yield start
