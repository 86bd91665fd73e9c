"""What the services must not let out while they are tested: the PIN, and words out of requests that were wrong."""

import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.fuzz.callers import HSM_HOME, SERVICES, Round
from tests.fuzz.echo import CANARY


def leaks(directory: Path, found: Collection[Round]) -> Iterator[str]:
    """Name the files, logs and audit records above all, and the metrics that hold a secret; `found` still runs."""
    secrets = {CANARY.encode(), (directory / HSM_HOME / "pin").read_bytes().strip().rpartition(b":")[2]}
    for name, content in _said(directory, found):
        if any(secret in content for secret in secrets):
            yield f"{name}: a secret stands in it"


def _said(directory: Path, found: Collection[Round]) -> Iterator[tuple[str, bytes]]:
    for path in (path for name in SERVICES for path in (directory / name).rglob("*")):
        if path.is_file():
            yield str(path.relative_to(directory)), path.read_bytes()
    for url in {each.metrics_url for each in found}:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own
            yield url, answer.read()
