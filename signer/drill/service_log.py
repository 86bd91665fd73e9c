"""What went wrong with batches, as the service's own log tells it: nobody else sees that a batch was handed back."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from signer.drill.evidence import Event, Evidence

_FAILURES: Final = frozenset({"batch.returned", "batch.lost_lease", "batch.quarantined"})


class ServiceLog:
    """Reads the log of a running service, from line to line."""

    def __init__(self, path: Path, evidence: Evidence) -> None:
        self._file = path.open("rb")
        self._evidence = evidence
        self._rest = b""

    def read(self) -> None:
        """Note the failures among the lines that came since."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            self._note(_parsed(line))

    def close(self) -> None:
        """Read no more."""
        self._file.close()

    def _note(self, line: dict[str, Any]) -> None:
        if line.get("event") in _FAILURES:
            at_s = datetime.fromisoformat(line["timestamp"]).timestamp()
            code = str(line.get("code", "unknown"))
            self._evidence.note(Event(at_s, "sqs", code, transactions=int(line.get("transactions", 1))))


def _parsed(line: bytes) -> dict[str, Any]:
    """Give the line; nothing for one of a thread dump, or torn by a crash."""
    try:
        document = json.loads(line)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
