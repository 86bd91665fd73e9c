"""A key that changes, and a session that lies, are found while the service runs."""

import hashlib
import threading
from collections.abc import Callable

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import HsmUnavailableError, LoginRefusedError
from signer.hsm.errors import Fate
from signer.hsm.module import handle_of
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import SECOND_LABEL, Opened, OpenKeyRing, spec
from tests.hsm.tap import CKR_HOST_MEMORY, close_all_sessions, log_out, tapped


def sign(opened: Opened, count: int = 1, alias: str = "settlement") -> list[object]:
    """Sign with one key."""
    key = opened.key_ring.key(alias)
    tasks = [SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest()) for number in range(count)]
    return list(opened.key_ring.sign(tasks, Deadline.after(60)))


def sessions_of(answers: list[object]) -> set[int]:
    """The sessions that signed."""
    return {answered.session_handle for answered in answers if isinstance(answered, RawSignature)}


@pytest.mark.parametrize("label", ["wrong-extractable", "wrong-two", SECOND_LABEL])
def test_a_key_that_drifted_is_out_of_service(
    open_key_ring: OpenKeyRing, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    """Once a check finds other attributes, a second key or another one under the label, it signs no more."""
    opened = open_key_ring()
    assert sessions_of(sign(opened))
    (version,) = opened.key_ring._versions.plan("settlement")  # noqa: SLF001 - the token cannot be changed so
    monkeypatch.setattr(version, "spec", spec(label))
    opened.key_ring.check_keys()
    (answered,) = sign(opened)
    assert isinstance(answered, HsmUnavailableError)
    assert answered.message.startswith("out of service: key settlement")
    assert opened.key_ring.problems()
    opened.key_ring.check_keys()
    (told,) = opened.key_ring.take_incidents()
    assert (told.operation, told.key_alias) == ("key.drifted", "settlement")
    assert opened.metrics.registry.get_sample_value("signer_key_compliant", {"key": "settlement"}) == 0


# python-pkcs11 ends a search on a dead session twice, and can only print the second refusal.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_login_is_no_drift(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Keys that are invisible because the login is gone are not taken for absent."""
    opened = open_key_ring()
    with opened.connection.lend(Deadline.after(30)) as lent:
        close_all_sessions(softhsm.module, lent.module.token.slot.slot_id)
    opened.key_ring.check_keys()
    opened.key_ring.check_keys()
    assert all(isinstance(answered, RawSignature) for answered in sign(opened, 10))


def test_keys_are_not_looked_at_while_the_hsm_does_not_sign(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """A look would hold up the probe that ends the outage."""
    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1)
        tap.instead["C_SignInit"] = lambda _real, *_arguments: CKR_HOST_MEMORY
        for _ in range(3):
            sign(opened)
        assert opened.key_ring.problems()
        looks = tap.calls["C_FindObjectsInit"]
        opened.key_ring.check_keys()
        assert tap.calls["C_FindObjectsInit"] == looks


@pytest.fixture
def without_the_first(open_key_ring: OpenKeyRing, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Two keys, of which the first is deleted once both were checked."""
    opened = open_key_ring(spec(), spec(SECOND_LABEL, alias="payout"), sessions=2)
    (version,) = opened.key_ring._versions.plan("settlement")  # noqa: SLF001 - the token cannot be changed so
    monkeypatch.setattr(version, "spec", spec("deleted"))
    return opened


def assert_it_is_out_of_service(opened: Opened) -> None:
    """It is told, and costs the other key nothing."""
    (answered,) = sign(opened)
    assert isinstance(answered, HsmUnavailableError)
    assert "found no private keys with this label" in answered.message
    assert sessions_of(sign(opened, alias="payout"))
    (problem,) = opened.key_ring.problems()
    assert problem.startswith("out of service: key settlement (label deleted)")
    assert [told.operation for told in opened.key_ring.take_incidents()] == ["key.drifted"]
    assert opened.metrics.registry.get_sample_value("signer_key_compliant", {"key": "settlement"}) == 0


def test_a_key_that_was_deleted_is_found_out_by_the_check(without_the_first: Opened) -> None:
    """Sessions that still have its handle sign with it no more."""
    assert sessions_of(sign(without_the_first))
    without_the_first.key_ring.check_keys()
    assert_it_is_out_of_service(without_the_first)


def test_a_single_key_that_was_deleted_is_found_out_too(
    open_key_ring: OpenKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else in sight tells that the login stands: it is asked."""
    opened = open_key_ring()
    (version,) = opened.key_ring._versions.plan("settlement")  # noqa: SLF001
    monkeypatch.setattr(version, "spec", spec("deleted"))
    opened.key_ring.check_keys()
    assert opened.key_ring.problems()


def test_a_look_while_the_login_is_gone_counts_for_nothing(
    open_key_ring: OpenKeyRing, softhsm: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost between the two looks of a check, it hides the key once more: only the next check can tell."""
    looks: list[int] = []

    def log_out_at_the_second(real: Callable[..., int], session: int, *arguments: int) -> int:
        looks.append(session)
        if len(looks) == 2:
            log_out(softhsm.module, session)
        return int(real(session, *arguments))

    with tapped(softhsm.module) as tap:
        opened = open_key_ring()
        (version,) = opened.key_ring._versions.plan("settlement")  # noqa: SLF001
        monkeypatch.setattr(version, "spec", spec("deleted"))
        tap.instead["C_FindObjectsInit"] = log_out_at_the_second
        opened.key_ring.check_keys()
        assert (len(looks), opened.key_ring.problems()) == (2, ())


def test_a_key_that_was_deleted_is_found_out_by_the_next_session(without_the_first: Opened, softhsm: Token) -> None:
    """It is looked for again after a login, then it is absent; the other key signs on, and the breaker stays closed."""
    with without_the_first.connection.lend(Deadline.after(30)) as lent:
        close_all_sessions(softhsm.module, lent.module.token.slot.slot_id)
    assert sessions_of(sign(without_the_first, alias="payout"))
    assert_it_is_out_of_service(without_the_first)


def test_another_key_under_the_label_is_not_used_by_a_new_session(
    open_key_ring: OpenKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is opened later looks the key up again, and refuses one that is not the key of the start."""
    opened = open_key_ring(warm=False)
    (version,) = opened.key_ring._versions.plan("settlement")  # noqa: SLF001
    monkeypatch.setattr(version, "spec", spec(SECOND_LABEL))
    (answered,) = sign(opened)
    assert isinstance(answered, HsmUnavailableError)
    assert "no longer the key that was checked at start" in answered.message
    assert opened.key_ring.problems()


def test_the_session_used_last_is_lent_first(open_key_ring: OpenKeyRing) -> None:
    """One request at a time stays on one warm session; the others idle."""
    opened = open_key_ring(sessions=4)
    assert len(set.union(*(sessions_of(sign(opened)) for _ in range(20)))) == 1


def test_a_refused_login_is_tried_once_by_all(open_key_ring: OpenKeyRing, softhsm: Token) -> None:
    """Sixteen threads find the login gone and the PIN no longer right: the token sees one try, however slow it is."""
    entered = threading.Event()
    waiting = threading.Event()

    def slow(real: Callable[..., int], *arguments: int) -> int:
        entered.set()
        waiting.wait(5)
        return int(real(*arguments))

    with tapped(softhsm.module) as tap:
        opened = open_key_ring(sessions=1, warm=False)
        with opened.connection.lend(Deadline.after(30)) as lent:
            session = lent.module.open_session()
            log_out(softhsm.module, handle_of(session))
        opened.connection._read_pin = lambda: "signer-dev:wrong"  # noqa: SLF001 - as if it had been rotated
        tap.instead["C_Login"] = slow
        before = tap.calls["C_Login"]
        refused: list[LoginRefusedError] = []
        threads = [threading.Thread(target=mend, args=(opened, refused)) for _ in range(16)]
        for thread in threads:
            thread.start()
        assert entered.wait(30)
        waiting.set()
        for thread in threads:
            thread.join(30)
        assert (len(refused), tap.calls["C_Login"] - before) == (16, 1)


def mend(opened: Opened, refused: list[LoginRefusedError]) -> None:
    """Ask for a login, all in the generation that lost it."""
    try:
        opened.connection.mend(Fate.LOG_IN, 0, Deadline.after(30))
    except LoginRefusedError as error:
        refused.append(error)
