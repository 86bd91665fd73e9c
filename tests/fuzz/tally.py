"""What a run of schemathesis reached: each answer of the service counted once, and what is short of what is wanted."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis import Case, CheckContext, Response

from signer.api.frame import REQUEST_ID_HEADER
from tests.fuzz.echo import refused_items

VARIABLE: Final = "FUZZ_TALLY"
"""Names the file that `answered` writes to: one line for each answer that was checked."""
NOBODY: Final = "nobody"
"""The round without credentials."""


@schemathesis.check
def answered(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Note which operation was asked, how the service answered, and how many items it refused in there.

    Its own request id tells answers apart.
    What carries none never came as far as the application, and is not counted.
    """
    (request_id,) = response.headers.get(REQUEST_ID_HEADER.lower(), [""])
    if request_id:
        items = len(refused_items(response))
        line = f"{request_id}\t{response.status_code}\t{case.operation.label}\t{items}\n"
        with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
            file.write(line)


@dataclass(frozen=True)
class Tally:
    """One round: the answers by operation and status, and what the others know of it."""

    name: str
    answers: Mapping[tuple[str, int], int]
    operations: Collection[str]
    """What the service describes, as in `POST /v1/sign`."""
    secured: Collection[str]
    """Those of them that want credentials."""
    served: int
    """Requests by the service's own count."""
    seconds: float
    refused_items: int
    """Items of batches that were answered all the same."""

    def of(self, operation: str) -> int:
        """How many cases of one operation."""
        return sum(count for (name, _), count in self.answers.items() if name == operation)

    @property
    def total(self) -> int:
        """How many cases."""
        return sum(self.answers.values())

    def granted(self, operation: str) -> int:
        """How many of them the service did what was asked for."""
        return sum(n for (name, status), n in self.answers.items() if name == operation and status < 300)


def read(file: Path) -> tuple[Counter[tuple[str, int]], int]:
    """Give the answers that `answered` noted, each request once, and how many items were refused in them."""
    noted = {line.split("\t", 1)[0]: line for line in file.read_text(encoding="utf-8").splitlines()}
    fields = [line.split("\t") for line in noted.values()]
    answers = Counter((label, int(status)) for _, status, label, _ in fields)
    return answers, sum(int(items) for *_, items in fields)


def shortcomings(tallies: Sequence[Tally], wanted: Collection[str], least: int) -> Iterator[str]:
    """Say what was not tested: rounds, operations, doors that no credential opened, or that none was needed for."""
    yield from (f"{name}: no such round was run" for name in wanted if name not in {tally.name for tally in tallies})
    total = sum(tally.total for tally in tallies)
    if total < least:
        yield f"{total:,} cases, where {least:,} are wanted"
    for tally in tallies:
        yield from (f"{tally.name}: {fault}" for fault in _shortcomings(tally))


def _shortcomings(tally: Tally) -> Iterator[str]:
    if tally.served < tally.total:
        yield f"{tally.total:,} answers, and the service knows of {tally.served:,} requests"
    if tally.name != NOBODY and not tally.refused_items:
        yield "no item of a batch was refused among others"
    for operation in tally.operations:
        is_open = operation not in tally.secured or tally.name != NOBODY
        if not tally.of(operation):
            yield f"{operation} was not reached"
        elif is_open and not tally.granted(operation):
            yield f"{operation} was never granted: nothing behind its door was tested"
        elif not is_open and tally.granted(operation):
            yield f"{operation} was granted to who has no credentials"
