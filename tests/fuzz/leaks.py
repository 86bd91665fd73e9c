"""What the services must not let out while they are tested: the PIN, and words out of requests that were wrong."""

from collections.abc import Collection, Iterator
from pathlib import Path

from tests import canaries
from tests.fuzz.callers import HSM_HOME, Round
from tests.fuzz.echo import CANARY


def leaks(directory: Path, found: Collection[Round]) -> Iterator[str]:
    """Name the places that hold a secret, files, logs and audit records above all; `found` still runs.

    Answers were looked at as they came.
    """
    secrets = {CANARY, canaries.pin_in(directory / HSM_HOME / "pin")}
    for service, url in sorted({(each.directory, each.health_url) for each in found}):
        yield from canaries.leaks(service, url, (), secrets)
