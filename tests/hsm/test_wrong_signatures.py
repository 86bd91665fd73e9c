"""Two wrong signatures in a row, and nothing is signed until a person has looked; a restart is no way around it."""

import hashlib
import json
from pathlib import Path

import pytest

from signer.deadlines import Deadline
from signer.errors import ConfigurationError, HsmUnavailableError, InvalidInputError
from signer.hsm.latch import Latch
from signer.ports import RawSignature, SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import Opened, OpenKeyRing


def sign(opened: Opened, *, probing: bool = False) -> RawSignature:
    """Sign one digest; raises what it was refused with."""
    task = SignTask(opened.key_ring.key("settlement"), DEFAULT_ALGORITHM, hashlib.sha256(b"x").digest())
    (answer,) = opened.key_ring.sign([task], Deadline.after(30), probing=probing)
    if isinstance(answer, RawSignature):
        return answer
    raise answer


def judge(opened: Opened, *verdicts: str) -> None:
    """Sign once for each verdict, and give it."""
    for verdict in verdicts:
        opened.key_ring.judge(sign(opened), sound=verdict == "sound")


def breaker_records(opened: Opened) -> list[str]:
    """What the audit log is told about the breaker, by the first word."""
    incidents = opened.key_ring.take_incidents()
    return [str(entry.detail).partition(":")[0] for entry in incidents if entry.operation == "hsm.breaker"]


def latched(opened: Opened) -> float | None:
    """What the metric says."""
    return opened.metrics.registry.get_sample_value("signer_hsm_breaker_latched")


def test_after_two_wrong_signatures_nothing_is_signed(open_key_ring: OpenKeyRing) -> None:
    """Not even a probe, and not by the process that is started next; the audit log is told."""
    opened = open_key_ring()
    judge(opened, "wrong", "wrong")
    for probing in (False, True, True):
        with pytest.raises(HsmUnavailableError, match="wrong_signatures: two signatures in a row did not verify"):
            sign(opened, probing=probing)
    assert (opened.key_ring.problems() != (), latched(opened)) == (True, 1)
    assert breaker_records(opened) == ["latched"]
    successor = open_key_ring()
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(successor, probing=True)
    assert (breaker_records(successor), latched(successor)) == (["latched"], 1)


def test_one_wrong_signature_among_right_ones_latches_nothing(open_key_ring: OpenKeyRing) -> None:
    """Its session goes; the service stays."""
    opened = open_key_ring()
    judge(opened, "wrong", "sound", "wrong", "sound")
    assert opened.key_ring.problems() == ()
    assert opened.discarded() == 2


def test_what_was_signed_before_the_latch_fell_does_not_lift_it(open_key_ring: OpenKeyRing) -> None:
    """A sound signature that was on its way changes nothing."""
    opened = open_key_ring()
    on_its_way = sign(opened)
    judge(opened, "wrong", "wrong")
    opened.key_ring.judge(on_its_way, sound=True)
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(opened, probing=True)


def test_once_cleared_a_probe_proves_it(open_key_ring: OpenKeyRing, latch_file: Path) -> None:
    """Who cleared it is told to the audit log before the next probe is let through; that one closes the breaker."""
    opened = open_key_ring()
    judge(opened, "wrong", "wrong")
    opened.key_ring.take_incidents()
    cleared = Latch(latch_file).clear("ada@bank.example", "flipped bit, HSM replaced")
    assert cleared is not None
    with pytest.raises(HsmUnavailableError):
        sign(opened, probing=True)
    (incident,) = opened.key_ring.take_incidents()
    assert incident.detail == "cleared: by ada@bank.example: flipped bit, HSM replaced"
    with pytest.raises(HsmUnavailableError):
        sign(opened)
    opened.key_ring.judge(sign(opened, probing=True), sound=True)
    judge(opened, "sound")
    assert (opened.key_ring.problems(), breaker_records(opened), latched(opened)) == ((), ["closed"], 0)
    assert not latch_file.exists()


def test_one_more_wrong_signature_after_the_clearing_latches_again(
    open_key_ring: OpenKeyRing, latch_file: Path
) -> None:
    """It is not given two more."""
    opened = open_key_ring()
    judge(opened, "wrong", "wrong")
    Latch(latch_file).clear("ada", "nothing found")
    with pytest.raises(HsmUnavailableError):
        sign(opened, probing=True)
    opened.key_ring.judge(sign(opened, probing=True), sound=False)
    with pytest.raises(HsmUnavailableError, match="wrong_signatures"):
        sign(opened, probing=True)
    assert json.loads(latch_file.read_text())["cleared_by"] is None


def test_a_latch_file_that_is_gone_does_not_count_as_cleared(open_key_ring: OpenKeyRing, latch_file: Path) -> None:
    """Whoever removes it has told nobody why."""
    opened = open_key_ring()
    judge(opened, "wrong", "wrong")
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
