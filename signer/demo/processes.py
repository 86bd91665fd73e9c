"""Starts a program, waits until it answers, and ends it: by its own process id, never by name."""

import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from signer.errors import UnavailableError

_POLL_S: Final = 0.05
# Below those that Linux gives to outgoing connections (ip(7), ip_local_port_range).
_PORTS: Final = range(20_000, 32_768)
_TERM_TIMEOUT_S: Final = 60.0


class Program:
    """One child process with its output in a file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._name = log.stem
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_for(self, url: str, timeout_s: float = 30.0) -> None:
        """Return once `url` answers 200; raises `UnavailableError` with the log's name if it ends or takes too long."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                msg = f"{self._name} ended with status {self._process.returncode}; see {self.log}"
                raise UnavailableError(msg)
            if _answers(url):
                return
            time.sleep(_POLL_S)
        msg = f"{self._name} did not get ready in {timeout_s:.0f} s; see {self.log}"
        raise UnavailableError(msg)

    def terminate(self) -> int:
        """Ask it to end, wait, and give its exit status (negative: the signal that ended it)."""
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait(_TERM_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; kills it and raises `UnavailableError` if that takes too long."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            msg = f"{self._name} did not end in {timeout_s:.0f} s; see {self.log}"
            raise UnavailableError(msg) from None


def free_port() -> int:
    """Find a loopback port that nobody uses at this moment, nor as the near end of a connection while ours restarts."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - http on loopback
            return bool(answer.status == 200)  # noqa: PLR2004
    except (urllib.error.URLError, OSError):
        return False
