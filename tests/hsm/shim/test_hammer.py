"""Eight threads on the shim at once, with every handle translated or none, in quiet and while faults rain down."""

import threading
from collections.abc import Callable
from typing import Any

import pkcs11
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from pkcs11 import Mechanism

from softhsm.shim.client import Shim
from tests.hsm.conftest import GOOD_LABEL, SECOND_LABEL
from tests.hsm.shim.conftest import OpenClient
from tests.hsm.shim.raw import Client, private_key, public_half, sign

THREADS = 8
ROUNDS = 150
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def at_once(work: Callable[[int], None]) -> None:
    """Let eight threads begin at the same time, and wait for all."""
    barrier = threading.Barrier(THREADS)
    failures: list[BaseException] = []

    def begin(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - told below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def sound(key: Any, public: Any, digest: bytes) -> bool:
    """Sign, and tell whether it verifies."""
    signature = key.sign(DIGEST_INFO + digest, mechanism=Mechanism.RSA_PKCS)
    try:
        recovered = public.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except InvalidSignature:
        return False
    return bool(recovered == DIGEST_INFO + digest)


@pytest.mark.parametrize("preset", ["none", "cloudhsm"])
def test_eight_threads(shim: Shim, open_client: OpenClient, preset: str) -> None:
    """Each with a session of its own and two keys in turn: every signature verifies, and nothing is miscounted."""
    shim.preset("cloudhsm" if preset == "cloudhsm" else "none", latency=False)
    client = open_client()
    verified = [0] * THREADS

    def work(number: int) -> None:
        session = client.open_session()
        keys = [private_key(session, label) for label in (GOOD_LABEL, SECOND_LABEL)]
        publics = [public_half(key) for key in keys]
        for turn in range(ROUNDS):
            digest = b"%16d%16d" % (number, turn)
            verified[number] += sound(keys[turn % 2], publics[turn % 2], digest)

    at_once(work)
    counts = shim.counts()
    assert verified == [ROUNDS] * THREADS
    assert (counts["C_Sign"].calls, counts["C_Sign"].in_flight) == (THREADS * ROUNDS, 0)
    assert 1 < counts["C_Sign"].max_in_flight <= THREADS
    assert counts.sessions == 1 + THREADS


# A search that could not begin ends in the destructor of python-pkcs11, which complains on stderr.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_faults_in_the_middle_of_it(client: Client, shim: Shim, pin: str) -> None:
    """Sessions and login are torn away thirty times under eight threads: errors come, a wrong signature never does.

    The real module would crash by that; the shim waits for the calls that are in it.
    """
    digest = b"\1" * 32
    expected = sign(private_key(client.open_session()), digest)
    over = threading.Event()
    signed = [0] * THREADS

    def work(number: int) -> None:
        while not over.is_set():
            try:
                key = private_key(client.token.open(rw=True))
                while not over.is_set():
                    assert sign(key, digest) == expected
                    signed[number] += 1
            except pkcs11.PKCS11Error:
                log_in_again(client, pin)

    def tear() -> None:
        try:
            for _ in range(30):
                before = sum(signed)
                shim.until(lambda counts: sum(signed) > before and counts.sessions > 0)  # noqa: B023 - called in here
                shim.drop_login()
                shim.close_sessions()
                shim.device_away().end()
        finally:
            over.set()

    tearer = threading.Thread(target=tear)
    tearer.start()
    at_once(work)
    tearer.join()


def log_in_again(client: Client, pin: str) -> None:
    """Log in unless somebody else did; a session that fails to is not missed."""
    try:
        client.token.open(rw=True, user_pin=pin)
    except pkcs11.PKCS11Error:
        return
