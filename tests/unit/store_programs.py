"""Programs that tests run in processes of their own, to kill them, to fill their disk, or to collide with them.

python -m tests.unit.store_programs NAME ARGUMENTS
"""

import json
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from signer import logs
from signer.errors import SignerError
from signer.ports import Claimed
from tests.unit.stores import claim, entry, new_audit_log, new_ledger, signature


def say(**members: object) -> None:
    """Print one JSON line, at once."""
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def forever(work: Callable[[int], None]) -> None:
    """Let four threads work until the process is killed."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def append_forever(directory: str) -> None:
    """Append large batches and say which records are durable."""
    log = new_audit_log(Path(directory))

    def work(thread: int) -> None:
        while True:
            say(durable=log.append([entry(thread, detail="x" * 20_000)] * 10))

    forever(work)


def claim_forever(path: str) -> None:
    """Claim and complete batches and say what is durable."""
    ledger = new_ledger(Path(path))

    def work(thread: int) -> None:
        number = 0
        while True:
            number += 1
            names = [f"{thread}-{number}-{index}" for index in range(10)]
            claimed = [
                answer for answer in ledger.claim([claim(name) for name in names]) if isinstance(answer, Claimed)
            ]
            say(claimed=names)
            ledger.complete([(one, signature(one.claim.transaction_id)) for one in claimed[:5]])
            say(completed=names[:5])

    forever(work)


def open_both(directory: str, path: str) -> None:
    """Try to open what another process holds, and say what happens."""
    for name, opened in (("audit", lambda: new_audit_log(Path(directory))), ("ledger", lambda: new_ledger(Path(path)))):
        try:
            with closing(opened()):
                say(store=name, code=None, message="opened")
        except SignerError as error:
            say(store=name, code=error.code, message=error.message)


def fill_audit(directory: str) -> None:
    """Append until files may not grow any more, then again after they may."""
    with closing(new_audit_log(Path(directory))) as log:
        until_full(lambda number: log.append([entry(number, detail="x" * 700)] * 5), lambda: log.healthy)


def fill_ledger(path: str) -> None:
    """Claim until files may not grow any more, then again after they may."""
    with closing(new_ledger(Path(path))) as ledger:
        until_full(
            lambda number: [
                answer.claim.transaction_id
                for answer in ledger.claim([claim(f"{number}-{index}") for index in range(5)])
                if isinstance(answer, Claimed)
            ],
            lambda: ledger.healthy,
        )


def until_full(work: Callable[[int], list[str]], healthy: Callable[[], bool]) -> None:
    """Work under a limit to the size of files (EFBIG, as on a full disk), and go on once it is lifted."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_001, hard))
    for number in range(1000):
        try:
            say(durable=work(number), healthy=healthy())
        except SignerError as error:
            say(code=error.code, message=error.message, healthy=healthy())
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    say(durable=work(1000), healthy=healthy())


if __name__ == "__main__":
    logs.configure(stream=sys.stderr)
    globals()[sys.argv[1]](*sys.argv[2:])
