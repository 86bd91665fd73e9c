"""Sixteen threads, one session each, every signature verified: run as a program, because without locking it crashes."""

import hashlib
import os
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from signer import logs
from signer.deadlines import Deadline
from signer.hsm import cryptoki
from signer.hsm.compliance import KeySpec
from signer.hsm.connection import Connection
from signer.hsm.hung_calls import HungCalls
from signer.hsm.journal import Journal
from signer.hsm.keyring import HsmKeyRing
from signer.hsm.latch import Latch
from signer.metrics import HsmMetrics
from signer.ports import RawSignature, SignTask
from signer.signatures import ALGORITHMS, verifies

THREADS = 16


def main(module_path: str, token: str, pin_file: str, label: str, total: str, locking: str) -> None:
    """Sign `total` digests and print how many verified; with `locking` "off", initialise as python-pkcs11 would."""
    if locking == "off":
        cryptoki._CKF_OS_LOCKING_OK = 0  # type: ignore[misc] # noqa: SLF001 - the guard is taken out on purpose
    pin = Path(pin_file).read_text(encoding="utf-8").strip()
    journal = Journal(HsmMetrics(CollectorRegistry()), logs.get("hammer"), lambda: datetime.now(UTC))
    latch = Latch(Path(pin_file).with_name("hammer-latch.json"))
    hung_calls = HungCalls(60, THREADS, os.abort, journal)
    with closing(Connection(Path(module_path), token, lambda: pin, hung_calls, journal)) as connection:
        spec = KeySpec("hammer", label, None, frozenset())
        with closing(HsmKeyRing(connection, "hammer", [spec], THREADS, latch, journal)) as key_ring:
            key_ring.warm_up(0)
            print(hammer(key_ring, int(total) // THREADS))  # noqa: T201
            sys.stdout.flush()
    os._exit(0)


def hammer(key_ring: HsmKeyRing, each: int) -> int:
    """Let every thread sign `each` digests one by one, and count those that verify."""
    key = key_ring.key("hammer")
    algorithms = tuple(ALGORITHMS.values())
    verified = [0] * THREADS
    barrier = threading.Barrier(THREADS)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(each):
            task = SignTask(key, algorithms[turn % 2], hashlib.sha256(b"%d.%d" % (number, turn)).digest())
            (answer,) = key_ring.sign([task], Deadline.after(60))
            if isinstance(answer, RawSignature):
                verified[number] += verifies(key.public_key, task.algorithm, task.digest, answer.value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(verified)


main(*sys.argv[1:])
