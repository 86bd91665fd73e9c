"""make hostile: a hundred thousand hostile messages, each read at the desk, and each sent through a real queue."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings

from loadtest.stopping import clean_up_at_sigterm
from signer.demo.processes import Program
from signer.demo.stack import Emulator, Stack, provision
from tests.hostile import sending
from tests.hostile.corpus import large, small
from tests.hostile.hostile import Hostile
from tests.hostile.mutations import anything, bent
from tests.hostile.reading import Reader, reader
from tests.service.running import running

_CHUNK: Final = 1000
"""Of them hypothesis makes a third up, from a seed of their own: what it remembers of them is forgotten with it."""
_OF_HYPOTHESIS: Final = _CHUNK // 3
_CORPUS_ROUNDS: Final = 3
_AWS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-central-1"}


def main() -> int:
    """Run, and tell; 1 if anything happened that must not."""
    clean_up_at_sigterm()
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--bodies", type=int, default=100_000, help="made up, and read in this process")
    parser.add_argument("--queued", type=int, default=100_000, help="of them, so many go through the queue too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path(".local/reports/hostile.json"))
    options = parser.parse_args()
    os.environ.update(_AWS)
    with tempfile.TemporaryDirectory() as name, closing(Emulator(Path(name))) as emulator:
        directory = Path(name) / "stack"
        directory.mkdir()
        stack = Stack(directory, emulator, provision(Path(name) / "token"))
        stack.environment |= sending.settings()
        with reader(emulator, emulator.create_bucket("hostile-bodies")) as desk, running(stack) as service:
            read = read_all(desk, options.bodies, options.seed)
            queued = send_all(stack, service, options.queued, options.seed)
    report = {"read": read, "queued": queued, "load": os.getloadavg()}
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2), encoding="utf-8")
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return int(bool(queued["wrong"]))


def read_all(desk: Reader, count: int, first_seed: int) -> dict[str, Any]:
    """Have the corpus and so many made-up ones read; whatever has no verdict that it should have ends the run."""
    began_s, before_mib, kinds, resident = time.monotonic(), sending.resident_mib(os.getpid()), Counter[str](), []
    for hostile in [*small(), *large()]:
        desk.read(hostile)
        kinds[hostile.kind.partition(":")[0]] += 1
    for portion in portions(count, first_seed):
        for hostile in portion:
            desk.read(hostile)
            kinds[hostile.kind] += 1
        resident.append(round(sending.resident_mib(os.getpid())))
        say(f"{kinds.total():,} read, {resident[-1]} MiB")
    return {
        "bodies": kinds.total(),
        "seconds": round(time.monotonic() - began_s),
        "kinds": dict(kinds),
        "verdicts": dict(desk.verdicts),
        "resident_mib": [round(before_mib), *resident[:: max(1, len(resident) // 10)]],
    }


def send_all(stack: Stack, service: Program, count: int, first_seed: int) -> dict[str, Any]:
    """Send the corpus, some times over, and so many made-up ones through the queue."""
    began_s = time.monotonic()
    sender = sending.Sender(stack, service)
    for _ in range(_CORPUS_ROUNDS):
        sender.send_all([*small(), *large()])
        say(f"{len(sender.account.sent):,} came out, {sender.account.resident_mib[-1]:.0f} MiB")
    after_corpus_mib = sending.resident_mib(service.pid, "VmHWM")
    for portion in portions(count, first_seed):
        sender.send_all(portion)
        say(f"{len(sender.account.sent):,} came out, {sender.account.resident_mib[-1]:.0f} MiB")
    account = sender.account
    resident = account.resident_mib
    return {
        "bodies": len(account.sent),
        "seconds": round(time.monotonic() - began_s),
        "verdicts": dict(account.by_code),
        "under_way": account.under_way,
        "resident_mib": [round(each) for each in (*resident[:: max(1, len(resident) // 10)], resident[-1])],
        "most_resident_mib": {
            "after the corpus": round(after_corpus_mib),
            "in the end": round(sending.resident_mib(service.pid, "VmHWM")),
        },
        "wrong": sorted(set(account.wrong)),
    }


def portions(count: int, first_seed: int) -> Iterator[list[Hostile]]:
    """Make up so many messages, a portion at a time."""
    for start in range(0, count, _CHUNK):
        seeds = range(first_seed + start, first_seed + start + _CHUNK - _OF_HYPOTHESIS)
        yield [*_made_up(first_seed + start), *map(bent, seeds)][: count - start]


def _made_up(number: int) -> list[Hostile]:
    found: list[Hostile] = []

    @seed(number)
    @settings(
        max_examples=_OF_HYPOTHESIS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile=anything())
    def collect(hostile: Hostile) -> None:
        found.append(hostile)

    collect()
    return found


def say(text: str) -> None:
    """Print a line now."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
