"""What the shim is told to do wrong it does, to whom it is told, and no more."""

import ctypes
import threading
from collections.abc import Callable

import pkcs11
import pytest

from softhsm.shim.client import Shim, ShimError
from tests.hsm.shim.conftest import OpenClient
from tests.hsm.shim.raw import Client, RefusedError, call, handle_of, log_in, private_key, sign


def test_told_nothing_it_only_counts(client: Client, shim: Shim) -> None:
    """A signature is one C_SignInit, a size query and one C_Sign, and the session count is that of the process."""
    key = private_key(client.open_session())
    sign(key)  # for the first one python-pkcs11 also reads the type of the key
    before = shim.counts()
    sign(key)
    after = shim.counts()
    calls = {name: after[name].calls - before[name].calls for name in after.functions}
    assert {name: count for name, count in calls.items() if count} == {"C_SignInit": 1, "C_Sign:size": 1, "C_Sign": 1}
    assert (after.sessions, after["C_Sign"].in_flight, after["C_Sign"].max_in_flight) == (2, 0, 1)


def test_a_fixed_delay(client: Client, shim: Shim) -> None:
    """Every call is delayed by the same time, until the block ends."""
    session = client.open_session()
    with shim.delay("C_GenerateRandom", fixed_ms=0.05):
        for _ in range(3):
            session.generate_random(64)
    session.generate_random(64)
    random = shim.counts()["C_GenerateRandom"]
    assert (random.calls, random.delayed) == (4, 3)
    assert random.delay_min_ms == random.delay_max_ms == 0.05
    assert random.delay_sum_ms == pytest.approx(0.15)


def test_a_uniform_delay(client: Client, shim: Shim) -> None:
    """Delays lie between the bounds, and use all the room there is."""
    session = client.open_session()
    shim.delay("C_GenerateRandom", uniform_ms=(0.01, 0.05))
    for _ in range(500):
        session.generate_random(64)
    random = shim.counts()["C_GenerateRandom"]
    assert 0.01 <= random.delay_min_ms < 0.013
    assert 0.047 < random.delay_max_ms <= 0.05
    assert random.delay_sum_ms / random.delayed == pytest.approx(0.03, rel=0.1)


def test_a_lognormal_delay(client: Client, shim: Shim) -> None:
    """The bounds are percentiles: some delays lie outside, and the mean is where the distribution has it."""
    session = client.open_session()
    shim.delay("C_GenerateRandom", lognormal_ms=(0.05, 0.10))
    for _ in range(500):
        session.generate_random(64)
    random = shim.counts()["C_GenerateRandom"]
    assert random.delay_min_ms < 0.05
    assert random.delay_max_ms > 0.10
    # The mean of a lognormal is exp(mu + sigma^2 / 2).
    assert random.delay_sum_ms / random.delayed == pytest.approx(0.0723, rel=0.08)


def test_a_failure_so_many_times(client: Client, shim: Shim) -> None:
    """C_Sign fails as often as it was told to, and leaves the session fit for the next one."""
    key = private_key(client.open_session())
    good = sign(key)
    shim.fail("C_Sign", "CKR_FUNCTION_FAILED", times=2)
    for _ in range(2):
        with pytest.raises(pkcs11.FunctionFailed):
            sign(key)
    assert sign(key) == good
    assert shim.counts()["C_Sign"].answered == 2


def test_a_failure_until_told_otherwise(client: Client, shim: Shim) -> None:
    """A failing size query, too, ends what C_SignInit began."""
    key = private_key(client.open_session())
    with shim.fail("C_Sign:size", "CKR_DEVICE_MEMORY"):
        for _ in range(5):
            with pytest.raises(pkcs11.DeviceMemory):
                sign(key)
    sign(key)


def test_a_failure_by_chance(client: Client, shim: Shim) -> None:
    """About every other call fails."""
    session = client.open_session()
    shim.fail("C_GenerateRandom", "CKR_RANDOM_NO_RNG", probability=0.5)
    failed = 0
    for _ in range(400):
        try:
            session.generate_random(64)
        except pkcs11.RandomNoRNG:
            failed += 1
    assert failed == shim.counts()["C_GenerateRandom"].answered
    assert 120 < failed < 280


def test_any_function_fails_with_any_code(shim: Shim) -> None:
    """All 68 functions answer what they are told, a number of a vendor too, and never reach the module."""
    functions = [name for name in shim.counts().functions if name != "C_Sign:size"]
    assert len(functions) == 68
    place = ctypes.create_string_buffer(64)
    for function in functions:
        with shim.fail(function, "0x80001234"):
            # The fourth is C_Sign's place for the signature, without which it would be a size query.
            assert call(function, 0, 0, 0, place, 0, 0, 0, 0) == 0x80001234, function


@pytest.mark.parametrize(
    "wrong",
    [
        lambda shim: shim.fail("C_Sing", "CKR_DEVICE_ERROR"),
        lambda shim: shim.fail("C_Sign", "CKR_DEVICE_EROR"),
        lambda shim: shim.delay("C_Sign", uniform_ms=(2, 1)),
        lambda shim: shim.sign_with_other_key("x" * 300),
        lambda shim: shim.process(1).counts(),
    ],
)
def test_a_mistake_is_told(shim: Shim, wrong: Callable[[Shim], object]) -> None:
    """A name that does not exist, a range that is none, a process that is not there: a test must not pass by them."""
    with pytest.raises(ShimError):
        wrong(shim)


def test_calls_hang_until_they_are_released(client: Client, shim: Shim) -> None:
    """Hung calls count as in flight; at the end of the block they go on and come to a good end."""
    keys = [private_key(client.open_session()) for _ in range(2)]
    signatures: list[bytes] = []
    threads = [threading.Thread(target=lambda key=key: signatures.append(sign(key))) for key in keys]
    with shim.hang("C_Sign") as hung:
        for thread in threads:
            thread.start()
        hung.wait_for(2)
        counts = shim.counts()
        assert (counts["C_Sign"].in_flight, signatures) == (2, [])
    for thread in threads:
        thread.join(30)
    assert len(signatures) == 2
    assert (shim.counts()["C_Sign"].hung, shim.counts()["C_Sign"].max_in_flight) == (0, 2)


def test_only_so_many_calls_hang(client: Client, shim: Shim) -> None:
    """The second one passes the first, which hangs."""
    stuck, other = (private_key(client.open_session()) for _ in range(2))
    thread = threading.Thread(target=sign, args=(stuck,))
    with shim.hang("C_Sign", times=1) as hung:
        thread.start()
        hung.wait_for(1)
        sign(other)
    thread.join(30)


def test_a_dropped_login(client: Client, shim: Shim, pin: str) -> None:
    """Sessions stay, keys go; after another C_Login a key can be looked up again."""
    session = client.open_session()
    key, good = private_key(session), sign(private_key(session))
    shim.drop_login()
    with pytest.raises(pkcs11.ObjectHandleInvalid):
        sign(key)
    assert shim.counts().sessions == 2
    log_in(session, pin)
    assert sign(private_key(session)) == good


def test_closed_sessions(client: Client, shim: Shim) -> None:
    """No session survives, and a new one is not logged in."""
    key = private_key(client.open_session())
    shim.close_sessions()
    assert shim.counts().sessions == 0
    with pytest.raises(pkcs11.SessionHandleInvalid):
        sign(key)
    with pytest.raises(pkcs11.NoSuchKey):
        private_key(client.open_session())


@pytest.mark.parametrize("code", ["CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_DEVICE_ERROR"])
def test_a_device_that_goes_and_comes_back(client: Client, shim: Shim, pin: str, code: str) -> None:
    """While away all calls answer the code; afterwards nothing that was there before is of use, handles are new."""
    session = client.open_session()
    key = private_key(session)
    with shim.device_away(code):
        for attempt in (lambda: sign(key), client.open_session):
            with pytest.raises(pkcs11.PKCS11Error) as caught:
                attempt()
            assert type(caught.value).__name__ == code.removeprefix("CKR_").title().replace("_", "")
    with pytest.raises(pkcs11.SessionHandleInvalid):
        sign(key)
    again = client.open_session()
    assert handle_of(again) > handle_of(session)
    log_in(again, pin)
    found = private_key(again)
    assert found.handle > key.handle
    sign(found)


def test_a_device_that_comes_back_by_itself(client: Client, shim: Shim) -> None:
    """Once its time is over it is there again."""
    shim.device_away(for_s=0)
    client.open_session()


def test_a_device_that_needs_a_new_start(open_client: OpenClient, shim: Shim) -> None:
    """It answers as before until C_Initialize, which is refused while it is really away."""
    client = open_client()
    shim.device_away("CKR_DEVICE_ERROR", rebuild=True)
    client.close()
    with pytest.raises(RefusedError, match="0x30"):
        open_client()
    shim.device_away("CKR_DEVICE_ERROR", for_s=0, rebuild=True)
    assert call("C_GetInfo", ctypes.create_string_buffer(1024)) == 0x30
    sign(private_key(open_client().open_session()))


def test_a_cap_on_sessions(client: Client, shim: Shim) -> None:
    """One session too many is refused, and a closed one makes room."""
    with shim.cap_sessions(3):
        first, _second = client.open_session(), client.open_session()
        with pytest.raises(pkcs11.SessionCount):
            client.open_session()
        first.close()
        client.open_session()
    client.open_session()
    assert (shim.counts().sessions, shim.counts().max_sessions) == (4, 4)
