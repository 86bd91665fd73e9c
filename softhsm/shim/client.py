"""Tells the PKCS#11 shim what to do while it runs, and asks what came through it.

    shim.fail("C_Sign", "CKR_DEVICE_ERROR", times=3)
    with shim.hang("C_Sign") as hung:
        hung.wait_for(2)

Every process that was started with `shim.environment(...)` and uses `LIBRARY` does what it is told, each for itself:
`times=3` is three times in each. `shim.process(pid)` speaks to one of them, `shim.at_start()` to those to come.
`"C_Sign:size"` is C_Sign asked for the size only, as python-pkcs11 does before each signature.
"""

import json
import math
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from softhsm.shim.counts import Counts, together

LIBRARY: Final = Path(__file__).resolve().parents[2] / ".local/shim/libshim.so"
_PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.002
_ALWAYS: Final = -1


class ShimError(Exception):
    """The shim refused a command, nobody was there to hear it, or what was waited for did not come."""


class Fault:
    """Something the shim does until it is told otherwise: ends with the block, or by `end`."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


class Hung(Fault):
    """Calls that hang; the end lets them go on."""

    def __init__(self, shim: "Shim", function: str, end: Callable[[], object]) -> None:
        super().__init__(end)
        self._shim, self._function = shim, function

    def wait_for(self, count: int = 1, timeout_s: float = _PATIENCE_S) -> None:
        """Return once `count` calls hang; raises `ShimError`."""
        self._shim.until(lambda counts: counts[self._function].hung >= count, timeout_s)


_HSM_SIGNS_PER_S: Final = 1000.0
"""RSA-2048, one HSM of AWS CloudHSM."""


def _rate(throttle_per_s: float | None, *, latency: bool) -> float:
    if throttle_per_s is not None:
        return throttle_per_s
    return _HSM_SIGNS_PER_S if latency else 0.0


class Shim:
    """The shim in all processes whose sockets are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def environment(
        self,
        module: Path,
        preset: Literal["cloudhsm"] | None = None,
        *,
        latency: bool = True,
        throttle_per_s: float | None = None,
    ) -> dict[str, str]:
        """What a process needs for the shim to wrap `module`.

        Without `latency` the preset signs at full speed; with it, it throttles beyond `throttle_per_s` (0: never), by
        default what one HSM does.
        """
        return {
            "SIGNER_SHIM_MODULE": str(module),
            "SIGNER_SHIM_SOCKET": str(self.directory),
            "SIGNER_SHIM_PRESET": preset or "",
            "SIGNER_SHIM_LATENCY": str(int(latency)),
            "SIGNER_SHIM_THROTTLE": str(_rate(throttle_per_s, latency=latency)),
        }

    def process(self, pid: int) -> "Shim":
        """Speak to one process only."""
        return _OneProcess(self.directory, pid)

    def at_start(self) -> "Shim":
        """Speak to every process that starts from now to the next `reset`, before its first call; counts nothing."""
        return _Startup(self.directory)

    def processes(self) -> list[int]:
        """Name the processes that use the shim now."""
        return sorted(int(path.stem) for path in self._sockets() if _ask(path, "counts") is not None)

    # --- what goes wrong ---

    def delay(
        self,
        function: str,
        *,
        fixed_ms: float | None = None,
        uniform_ms: tuple[float, float] | None = None,
        lognormal_ms: tuple[float, float] | None = None,
    ) -> Fault:
        """Delay each call; a lognormal delay is given by its 5th and 95th percentile."""
        fixed = None if fixed_ms is None else (fixed_ms, fixed_ms)
        kinds = {"fixed": fixed, "uniform": uniform_ms, "lognormal": lognormal_ms}
        ((kind, (low_ms, high_ms)),) = [(kind, bounds) for kind, bounds in kinds.items() if bounds is not None]
        return self._fault(("delay", function, kind, low_ms, high_ms), ("delay", function, "none", 0, 0))

    def fail(self, function: str, code: str, *, times: int = _ALWAYS, probability: float = 1.0) -> Fault:
        """Answer `code` (`CKR_...`, or a number) in the module's place."""
        return self._fault(("fail", function, code, times, probability), ("fail", function, "CKR_OK", 0, 0))

    def hang(self, function: str, *, times: int = _ALWAYS) -> Hung:
        """Let calls hang until the end of it."""
        self._tell("hang", function, times)
        return Hung(self, function, lambda: self._end("hang", function, 0))

    def crash(self, function: str = "C_Sign", by: signal.Signals = signal.SIGKILL, *, on_call: int = 1) -> Fault:
        """Kill the process inside the `on_call`th call from now."""
        return self._fault(("crash", function, int(by), on_call), ("crash", function, 0, 0))

    def drop_login(self) -> None:
        """Log the process out behind its back."""
        self._tell("logout")

    def close_sessions(self) -> None:
        """Close all sessions behind the back of the process; the last one takes the login with it."""
        self._tell("close-sessions")

    def device_away(self, code: str = "CKR_DEVICE_REMOVED", *, for_s: float = math.inf, rebuild: bool = False) -> Fault:
        """Answer `code` to all but C_Finalize until it is back; sessions, objects and the login are gone by then.

        With `rebuild` it goes on after that, until the module has been initialised anew.
        """
        return self._fault(("away", code, for_s, int(rebuild)), ("back",))

    def cap_sessions(self, sessions: int) -> Fault:
        """Let no process have more sessions than that."""
        return self._fault(("cap", sessions), ("cap", -1))

    def throttle(self, signatures_per_s: float) -> Fault:
        """Refuse what comes faster with CKR_FUNCTION_FAILED, and meanwhile attributes with CKR_DEVICE_ERROR."""
        return self._fault(("throttle", signatures_per_s), ("throttle", -1))

    def spoil_signatures(self, how: Literal["flip", "truncate"], *, times: int = _ALWAYS) -> Fault:
        """Flip one bit of each signature, or cut off its last byte."""
        return self._fault(("signature", how, times, ""), ("signature", "right", 0, ""))

    def sign_with_other_key(self, label: str, *, times: int = _ALWAYS) -> Fault:
        """Sign with the private key that has this label, whatever key is named."""
        return self._fault(("signature", "other", times, label), ("signature", "right", 0, ""))

    def replay_signatures(self) -> Fault:
        """Sign each digest once, and give the same signature at once whenever it comes again."""
        return self._fault(("replay", 1), ("replay", 0))

    def preset(
        self,
        name: Literal["cloudhsm", "none"],
        *,
        latency: bool = True,
        throttle_per_s: float | None = None,
    ) -> None:
        """Be like AWS CloudHSM, or no longer; to be told while no session is open."""
        self._tell("preset", name, int(latency), _rate(throttle_per_s, latency=latency))

    # --- what came through ---

    def counts(self) -> Counts:
        """Tell what came through, of all processes together."""
        return together(self._tell("counts"))

    def until(self, reached: Callable[[Counts], bool], timeout_s: float = _PATIENCE_S) -> Counts:
        """Return the counts once they are so; raises `ShimError`."""
        deadline_s = time.monotonic() + timeout_s
        while not reached(counts := self.counts()):
            if time.monotonic() > deadline_s:
                msg = f"what was waited for did not come within {timeout_s} s; last seen: {counts}"
                raise ShimError(msg)
            time.sleep(_POLL_S)
        return counts

    def reset(self) -> None:
        """End every fault, release every call, unlock every user, count from zero; a preset stays as at the start."""
        for path in (self.directory / "startup", *self.directory.glob("wrong-pins-*")):
            path.unlink(missing_ok=True)
        self._end("reset")

    # --- how ---

    def _fault(self, begin: tuple[object, ...], end: tuple[object, ...]) -> Fault:
        self._tell(*begin)
        return Fault(lambda: self._end(*end))

    def _tell(self, *words: object) -> list[dict[str, Any]]:
        replies = self._end(*words)
        if not replies:
            msg = f"no process uses the shim in {self.directory}"
            raise ShimError(msg)
        return replies

    def _end(self, *words: object) -> list[dict[str, Any]]:
        """Tell whoever is there: what is to end may have ended with its process."""
        replies = [reply for path in self._sockets() if (reply := _ask(path, *words)) is not None]
        for reply in replies:
            if "error" in reply:
                msg = f"{words[0]}: {reply['error']}"
                raise ShimError(msg)
        return replies

    def _sockets(self) -> list[Path]:
        return list(self.directory.glob("*.sock"))


class _OneProcess(Shim):
    def __init__(self, directory: Path, pid: int) -> None:
        super().__init__(directory)
        self._pid = pid

    def _sockets(self) -> list[Path]:
        return [self.directory / f"{self._pid}.sock"]


class _Startup(Shim):
    def _tell(self, *words: object) -> list[dict[str, Any]]:
        return self._end(*words)

    def _end(self, *words: object) -> list[dict[str, Any]]:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        with (self.directory / "startup").open("a", encoding="utf-8") as commands:
            commands.write("\t".join(map(str, words)) + "\n")
        return []


def _ask(path: Path, *words: object) -> dict[str, Any] | None:
    """Give the reply, or None if the process is dead."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_S)
        try:
            connection.connect(str(path))
            connection.sendall(("\t".join(map(str, words)) + "\n").encode())
            with connection.makefile(encoding="utf-8") as replies:
                text = replies.read()
        except (FileNotFoundError, ConnectionError):
            path.unlink(missing_ok=True)
            return None
    return json.loads(text) if text else None
