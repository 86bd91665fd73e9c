"""Sessions are counted while they are open, and told about when they close; none of an earlier generation stays."""

import hashlib

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import Opened, OpenKeyRing
from tests.hsm.tap import tapped
from tests.hsm.test_recovery import failing_times, lose_the_login

CKR_GENERAL_ERROR = 0x005
CKR_FUNCTION_FAILED = 0x006
CKR_SESSION_CLOSED = 0x0B0


def sign(opened: Opened, count: int) -> None:
    """Sign digests one after another."""
    for number in range(count):
        task = SignTask(opened.key_ring.key("settlement"), DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest())
        (answer,) = opened.key_ring.sign([task], Deadline.after(30))
        assert isinstance(answer, RawSignature)


def metric(opened: Opened, name: str, **labels: str) -> float:
    """What a scrape would say."""
    value = opened.metrics.registry.get_sample_value(name, labels)
    assert value is not None
    return value


def test_after_a_login_no_session_from_before_it_stays_open(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """The first who finds a session of an earlier generation closes all, those nobody would ask for too."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=8)
        assert metric(opened, "signer_sessions", state="idle") == 8
        lose_the_login(opened, softhsm)
        closed = tap.calls["C_CloseSession"]
        sign(opened, 1)
        assert tap.calls["C_CloseSession"] >= closed + 8
        assert metric(opened, "signer_sessions", state="idle") == 1
        assert metric(opened, "signer_sessions", state="busy") == 0


def test_age_and_use_of_a_session_are_told_when_it_closes(open_key_ring: OpenKeyRing) -> None:
    """How often it was lent, and for how long it was open; the oldest is told while it is open."""
    opened = open_key_ring(sessions=1)
    sign(opened, 15)
    assert metric(opened, "signer_session_oldest_seconds") > 0
    assert metric(opened, "signer_session_uses_count") == 0
    opened.key_ring.close()
    assert metric(opened, "signer_session_oldest_seconds") == 0
    assert (metric(opened, "signer_session_uses_count"), metric(opened, "signer_session_uses_sum")) == (1, 15)
    assert metric(opened, "signer_session_age_seconds_count") == 1


@pytest.mark.parametrize("code", [CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR])
def test_a_session_that_the_hsm_did_not_close_is_closed_later(
    open_key_ring: OpenKeyRing, softhsm: Token, code: int
) -> None:
    """It would count against the HSM's limit until the process ends."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        failing_times(tap, "C_CloseSession", code, 3)
        failing_times(tap, "C_SignInit", CKR_SESSION_CLOSED, 4)
        sign(opened, 1)
        closed = tap.calls["C_CloseSession"] - 3
        assert tap.calls["C_OpenSession"] - closed == 2, "the signing session's and the login's"
