"""The load: both entrances at the same time, at a steady rate, whatever becomes of it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from signer.drill.evidence import Evidence
from signer.drill.http_load import HttpLoad
from signer.drill.queue_load import QueueLoad
from signer.drill.service_log import ServiceLog
from signer.drill.stage import Stage

_REQUESTS_PER_S: Final = 20
_BATCHES_PER_S: Final = 4
_PATIENCE_S: Final = 120.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """The load while it runs."""

    evidence: Evidence
    http: HttpLoad
    queue: QueueLoad
    log: ServiceLog

    def look(self) -> None:
        """Take in what the service's log says; raises what ended the load, if something did."""
        self.log.read()
        self.http.check()
        self.queue.check()

    def drain(self) -> None:
        """Send no more, and wait for what is out, as long as a client would; what never comes is lost."""
        self.http.stop()
        self.queue.stop()
        give_up_s = time.monotonic() + _PATIENCE_S
        while self._waits() and time.monotonic() < give_up_s:
            self.look()
            time.sleep(_POLL_S)

    def _waits(self) -> bool:
        return not (self.http.finished() and self.queue.finished() and not self.evidence.unsigned())


@contextmanager
def running_load(stage: Stage) -> Iterator[Load]:
    """Run the load for the block."""
    evidence = Evidence()
    with ExitStack() as closing:
        log = ServiceLog(stage.stack.directory / "serve.log", evidence)
        closing.callback(log.close)
        http = HttpLoad(stage.stack.http_url, _REQUESTS_PER_S, _PATIENCE_S, evidence)
        closing.callback(http.stop)
        queue = QueueLoad(stage.stack, _BATCHES_PER_S, evidence)
        closing.callback(queue.close)
        closing.callback(queue.stop)
        yield Load(evidence, http, queue, log)
