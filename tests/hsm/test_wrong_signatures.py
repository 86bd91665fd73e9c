"""Two wrong signatures in a row, and nothing is signed until a person has looked; a restart is no way around it."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import ConfigurationError, HsmUnavailableError, InvalidInputError
from signer.hsm.latch import Latch
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import Opened, OpenKeyRing
from tests.hsm.tap import Tap, flip_one_bit, once, tapped


def sign(opened: Opened, *, probing: bool = False) -> RawSignature:
    """Sign one digest; raises what it was refused with."""
    task = SignTask(opened.key_ring.key("settlement"), DEFAULT_ALGORITHM, hashlib.sha256(b"x").digest())
    (answer,) = opened.key_ring.sign([task], Deadline.after(30), probing=probing)
    if isinstance(answer, RawSignature):
        return answer
    raise answer


@pytest.fixture
def tap(softhsm: Token) -> Iterator[Tap]:
    """What spoils signatures."""
    with tapped(softhsm.module) as tap:
        yield tap


def answer(opened: Opened, tap: Tap, *verdicts: str, probing: bool = False) -> list[RawSignature]:
    """Sign once for each verdict, and let the HSM earn it."""
    answers = []
    for verdict in verdicts:
        tap.instead = {"C_Sign": flip_one_bit} if verdict == "wrong" else {}
        answers.append(sign(opened, probing=probing))
        assert answers[-1].sound == (verdict == "sound")
    tap.instead = {}
    return answers


def sign_batch(opened: Opened, count: int) -> list[RawSignature]:
    """Sign several digests in one request; all are answered with a signature, sound or not."""
    key = opened.key_ring.key("settlement")
    tasks = [SignTask(key, DEFAULT_ALGORITHM, hashlib.sha256(b"%d" % number).digest()) for number in range(count)]
    answers = opened.key_ring.sign(tasks, Deadline.after(30))
    return [item for item in answers if isinstance(item, RawSignature)]


def breaker_records(opened: Opened) -> list[str]:
    """What the audit log is told about the breaker, by the first word."""
    incidents = opened.key_ring.take_incidents()
    return [str(entry.detail).partition(":")[0] for entry in incidents if entry.operation == "hsm.breaker"]


def latched(opened: Opened) -> float | None:
    """What the metric says."""
    return opened.metrics.registry.get_sample_value("signer_hsm_breaker_latched")


def test_after_two_wrong_signatures_nothing_is_signed(open_key_ring: OpenKeyRing, tap: Tap) -> None:
    """Not even a probe, and not by the process that is started next; the audit log is told."""
    opened = open_key_ring()
    answer(opened, tap, "wrong", "wrong")
    for probing in (False, True, True):
        with pytest.raises(HsmUnavailableError, match="wrong_signatures: two signatures in a row did not verify"):
            sign(opened, probing=probing)
    assert (opened.key_ring.problems() != (), latched(opened)) == (True, 1)
    assert breaker_records(opened) == ["latched"]
    successor = open_key_ring()
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(successor, probing=True)
    assert (breaker_records(successor), latched(successor)) == (["latched"], 1)


def test_one_wrong_signature_among_right_ones_latches_nothing(open_key_ring: OpenKeyRing, tap: Tap) -> None:
    """Its session goes, and signs not even the rest of the batch; the service stays."""
    opened = open_key_ring(sessions=1)
    tap.instead = {"C_Sign": once(flip_one_bit)}
    answers = sign_batch(opened, 20)
    wrong, sessions = [item for item in answers if not item.sound], {item.session_handle for item in answers}
    assert (len(wrong), len(sessions), opened.discarded()) == (1, 2, 1)
    assert [item.session_handle for item in answers].count(wrong[0].session_handle) == 1
    answer(opened, tap, "sound", "wrong", "sound")
    assert opened.key_ring.problems() == ()
    assert opened.discarded() == 2


def test_the_rest_of_a_batch_is_not_signed_once_it_is_latched(open_key_ring: OpenKeyRing, tap: Tap) -> None:
    """Nobody asks an HSM again that has lied twice."""
    opened = open_key_ring(sessions=1)
    tap.instead = {"C_Sign": flip_one_bit}
    task = SignTask(opened.key_ring.key("settlement"), DEFAULT_ALGORITHM, hashlib.sha256(b"x").digest())
    before = tap.calls["C_SignInit"]
    answers = opened.key_ring.sign([task] * 50, Deadline.after(30))
    assert [isinstance(item, RawSignature) for item in answers] == [True] * 2 + [False] * 48
    assert tap.calls["C_SignInit"] == before + 2


def test_what_was_signed_before_the_latch_fell_does_not_lift_it(open_key_ring: OpenKeyRing, tap: Tap) -> None:
    """A sound signature that was on its way changes nothing."""
    opened = open_key_ring(sessions=2)
    begun, go = threading.Event(), threading.Event()

    def wait(real: Callable[..., int], *arguments: int) -> int:
        begun.set()
        assert go.wait(30)
        return int(real(*arguments))

    on_its_way: list[RawSignature] = []
    tap.instead = {"C_SignInit": once(wait)}
    thread = threading.Thread(target=lambda: on_its_way.append(sign(opened)))
    thread.start()
    assert begun.wait(30)
    answer(opened, tap, "wrong", "wrong")
    go.set()
    thread.join(30)
    assert [item.sound for item in on_its_way] == [True]
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(opened, probing=True)


def test_once_cleared_a_probe_proves_it(open_key_ring: OpenKeyRing, tap: Tap, latch_file: Path) -> None:
    """Who cleared it is told to the audit log before the next probe is let through; that one closes the breaker."""
    opened = open_key_ring()
    answer(opened, tap, "wrong", "wrong")
    opened.key_ring.take_incidents()
    cleared = Latch(latch_file).clear("ada@bank.example", "flipped bit, HSM replaced")
    assert cleared is not None
    with pytest.raises(HsmUnavailableError):
        sign(opened, probing=True)
    (incident,) = opened.key_ring.take_incidents()
    assert incident.detail == "cleared: by ada@bank.example: flipped bit, HSM replaced"
    with pytest.raises(HsmUnavailableError):
        sign(opened)
    answer(opened, tap, "sound", probing=True)
    answer(opened, tap, "sound")
    assert (opened.key_ring.problems(), breaker_records(opened), latched(opened)) == ((), ["half_open", "closed"], 0)
    assert not latch_file.exists()


def test_one_more_wrong_signature_after_the_clearing_latches_again(
    open_key_ring: OpenKeyRing, tap: Tap, latch_file: Path
) -> None:
    """It is not given two more."""
    opened = open_key_ring()
    answer(opened, tap, "wrong", "wrong")
    Latch(latch_file).clear("ada", "nothing found")
    with pytest.raises(HsmUnavailableError):
        sign(opened, probing=True)
    answer(opened, tap, "wrong", probing=True)
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(opened, probing=True)
    assert json.loads(latch_file.read_text())["cleared_by"] is None


def test_a_latch_file_that_is_gone_does_not_count_as_cleared(
    open_key_ring: OpenKeyRing, tap: Tap, latch_file: Path
) -> None:
    """Whoever removes it has told nobody why."""
    opened = open_key_ring()
    answer(opened, tap, "wrong", "wrong")
    latch_file.unlink()
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(opened, probing=True)


def test_a_latch_file_that_cannot_be_read_keeps_the_service_down(open_key_ring: OpenKeyRing, latch_file: Path) -> None:
    """What it held back is unknown: a person has to look."""
    latch_file.write_bytes(b'{"half": ')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_key_ring()


@pytest.mark.parametrize(
    ("by", "reason"), [("", "x"), ("a b", "x"), ("ada", " "), ("ada", "x\x1b[2J"), ("ada", "x" * 201)]
)
def test_a_clearing_without_a_name_or_a_reason_is_refused(latch_file: Path, by: str, reason: str) -> None:
    """Both end up in the audit log, and on terminals."""
    with pytest.raises(InvalidInputError):
        Latch(latch_file).clear(by, reason)


def test_where_nothing_is_latched_nothing_is_cleared(latch_file: Path) -> None:
    """And no file is made."""
    assert Latch(latch_file).clear("ada", "looked") is None
    assert not latch_file.exists()
