"""What is measured: the service as anybody would start it, over one of three modules, on a stack of its own."""

import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from urllib.request import urlopen

from loadtest.limit import Limit, measure_limit
from loadtest.messages import ALIAS
from signer.demo.processes import Program
from signer.demo.stack import KEY_LABEL, Emulator, Stack, Token, provision
from softhsm.shim.client import LIBRARY, Shim

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = resource.getpagesize()
_SIGNING: Final = ("C_SignInit", "C_Sign", "C_Sign:size")


@dataclass(frozen=True, slots=True)
class Module:
    """A PKCS#11 module to measure over: SoftHSM behind the shim, which counts, and does what is said here."""

    name: str
    preset: Literal["cloudhsm"] | None
    replays: bool
    """Whether it signs each digest once and then gives the same signature, so that the CPU is left to the service."""
    sessions: int


MODULES: Final = {
    module.name: module
    for module in (
        Module("softhsm", None, replays=False, sessions=os.cpu_count() or 2),
        Module("shim-cloudhsm", "cloudhsm", replays=True, sessions=64),
        Module("shim-replay", None, replays=True, sessions=os.cpu_count() or 2),
    )
}


class Service:
    """One running process of the service."""

    def __init__(self, stack: Stack, python: str, shim: Shim) -> None:
        command = [python, "-m", "signer", "serve", "--config", str(stack.config)]
        self.stack = stack
        self.program = Program(command, stack.environment, stack.directory / "serve.log")
        try:
            self.program.wait_for(f"{stack.http_url}/readyz")
        except BaseException:
            self.program.kill()
            raise
        self.start_cpu_s = self.cpu_s()
        self._shim = shim.process(self.program.pid)

    @property
    def audit(self) -> Path:
        """Where its audit log is."""
        return self.stack.audit_directory

    @property
    def ledger(self) -> Path:
        """Where its ledger is."""
        return self.stack.directory / "ledger.sqlite3"

    def cpu_s(self) -> float:
        """Give the CPU time it used so far, of all its threads, in the kernel too (proc(5))."""
        fields = Path(f"/proc/{self.program.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def signing_cpu_s(self) -> float:
        """Give the part of it that was spent inside C_SignInit and C_Sign."""
        counts = self._shim.counts()
        return sum(counts[name].cpu_s for name in _SIGNING)

    def signed(self) -> int:
        """Give how many signatures its module has made: the calls of C_Sign, replayed ones too, as the shim counts."""
        return self._shim.counts()["C_Sign"].calls

    def rss_mb(self) -> float:
        """Give the memory it holds now."""
        pages = int(Path(f"/proc/{self.program.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * _PAGE_BYTES / 1e6

    def public_key(self) -> bytes:
        """Give the key to verify with."""
        url = f"{self.stack.http_url}/v1/keys/{ALIAS}/public-key"
        with urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())

    def routes(self) -> set[str]:
        """Name the paths it serves."""
        with urlopen(f"{self.stack.http_url}/openapi.json", timeout=10) as answer:  # noqa: S310
            return set(json.loads(answer.read())["paths"])


@dataclass(frozen=True, slots=True)
class Stage:
    """A token and an AWS endpoint, for services to be started on."""

    directory: Path
    emulator: Emulator
    token: Token
    module: Module
    shim: Shim

    @contextmanager
    def service(
        self, name: str, environment: Mapping[str, str], python: str = sys.executable, beside: Service | None = None
    ) -> Iterator[Service]:
        """Run a process in a directory of its own; `beside` another it takes from that one's queues."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        stack = Stack(directory, self.emulator, self.token)
        own = {key: value for key, value in stack.environment.items() if not key.upper().startswith("SIGNER_")}
        shim = self.shim.environment(self.token.module, self.module.preset, throttle_per_s=0)
        sessions = {"SIGNER_HSM__MODULE": str(LIBRARY), "SIGNER_HSM__SESSIONS": str(self.module.sessions)}
        stack.environment = {**own, **shim, **sessions, **_queues_of(beside), **environment}
        service = Service(stack, python, self.shim)
        try:
            yield service
        finally:
            service.program.terminate()

    def limit(self, sessions: int, seconds: float) -> Limit:
        """Measure what the module can do with so many threads."""
        environment = self.shim.environment(self.token.module, self.module.preset, throttle_per_s=0)
        return measure_limit(LIBRARY, self.token, KEY_LABEL, environment, threads=sessions, seconds=seconds)


def _queues_of(other: Service | None) -> dict[str, str]:
    if other is None:
        return {}
    queues = other.stack.queues
    callers = [f"queue:{queues['inbound'].rsplit('/', 1)[-1]}", "http:loopback"]
    urls = {f"SIGNER_SQS__{role.upper()}_URL": url for role, url in queues.items()}
    return urls | {f"SIGNER_KEYS__{ALIAS.upper()}__CALLERS": json.dumps(callers)}


@contextmanager
def open_stage(directory: Path, module: Module) -> Iterator[Stage]:
    """Bring up what a service needs, in an empty `directory`."""
    directory.mkdir(parents=True)
    with ExitStack() as closing:
        shim = Shim(Path(closing.enter_context(TemporaryDirectory(prefix="bench"))))  # a socket's path must be short
        if module.replays:
            shim.at_start().replay_signatures()
        emulator = Emulator(directory)
        closing.callback(emulator.close)
        yield Stage(directory, emulator, provision(directory / "token"), module, shim)
