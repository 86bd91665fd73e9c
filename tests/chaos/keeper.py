"""Keeps one service process running as an orchestrator would, and kills it again and again."""

import contextlib
import math
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.chaos.site import Service

AT_RANDOM: Final = "random"
_LATEST_PASS: Final = 3
"""The process dies when it comes by for the first, second or third time."""
_PATIENCE_S: Final = 30.0
_FEED_EVERY_S: Final = 1.0
_LOOK_S: Final = 0.1
_RANDOM_S: Final = (0.2, 4.0)
"""From the start of the process: in the middle of that, too."""
_MAY_END_WITH: Final = (75, 86)
"""Statuses that ask to be started again."""
_DRAIN_S: Final = 60.0

Feed = Callable[[str], None]
"""Sends what makes the service come by a failpoint."""


class Kills:
    """The kills that are still to be made, in random order, and those that were."""

    def __init__(self, failpoints: Sequence[str], each: int, at_random: int, seed: int) -> None:
        self._left = [name for name in failpoints for _ in range(each)] + [AT_RANDOM] * at_random
        random.Random(seed).shuffle(self._left)  # noqa: S311 - no secret
        self._under_way = 0
        self._lock = threading.Lock()
        self.made: Counter[str] = Counter()

    @property
    def finished(self) -> bool:
        """Whether all were made."""
        with self._lock:
            return not (self._left or self._under_way)

    def take(self) -> str | None:
        """Give the next one; None if there is none left."""
        with self._lock:
            self._under_way += bool(self._left)
            return self._left.pop() if self._left else None

    def end(self, wanted: str, made: str | None) -> None:
        """Say what came of it; what was wanted and not made comes again."""
        with self._lock:
            self._under_way -= 1
            if made is not None:
                self.made[made] += 1
            if made != wanted:
                self._left.insert(0, wanted)


class Keeper:
    """One process after the other."""

    def __init__(self, service: Service, kills: Kills, feed: Feed, seed: int) -> None:
        self.service = service
        self._kills = kills
        self._feed = feed
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.ended: list[int] = []
        """Statuses with which it ended by itself."""
        self._thread = threading.Thread(target=self._run, name=service.name, daemon=True)

    def start(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def close(self) -> None:
        """Let the last process end as it is asked to; its status must be 0."""
        self._closing.set()
        self._thread.join()
        if self._process is not None and self._process.poll() is None:
            self.ended.append(end(self._process))

    def unexpected(self) -> list[int]:
        """Give the statuses with which no process of ours may end."""
        return [status for status in self.ended if status not in (0, *_MAY_END_WITH)]

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def freeze_for(self, seconds: float) -> bool:
        """Let it go on after so long; False if it was killed meanwhile."""
        frozen = self._process
        self.freeze()
        self._closing.wait(seconds)
        if frozen is None or frozen.poll() is not None:
            return False
        frozen.send_signal(signal.SIGCONT)
        return True

    def _run(self) -> None:
        while not self._closing.is_set():
            wanted = self._kills.take()
            if wanted is not None:
                self._kills.end(wanted, self._kill_once(wanted))
                continue
            process = self._start()
            self._wait(process, math.inf)
            if process.poll() is not None:
                self.ended.append(process.returncode)

    def _start(self, **environment: str) -> subprocess.Popen[bytes]:
        self._process = process = self.service.start(**environment)
        return process

    def _kill_once(self, wanted: str) -> str | None:
        """Start the process and see it die; gives how, and None for a death of its own."""
        if wanted == AT_RANDOM:
            process = self._start()
            self._wait(process, self._random.uniform(*_RANDOM_S))
        else:
            process = self._start(SIGNER_FAILPOINT=f"{wanted}:{self._random.randint(1, _LATEST_PASS)}")
            self._wait(process, _PATIENCE_S, lambda: self._feed(wanted))
        if process.poll() is None:
            process.kill()
            process.wait()
            return AT_RANDOM
        if process.returncode == -signal.SIGKILL:
            return wanted
        self.ended.append(process.returncode)
        return None

    def _wait(
        self, process: subprocess.Popen[bytes], longest_s: float, feed: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until the process has ended, or so long."""
        began_s = fed_s = time.monotonic()
        feed()
        while (now_s := time.monotonic()) < began_s + longest_s and not self._closing.is_set():
            if now_s > fed_s + _FEED_EVERY_S:
                fed_s = now_s
                feed()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_S)
                return


def end(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, and give its status; kills it if that takes too long."""
    process.terminate()
    try:
        return process.wait(_DRAIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
