"""The preset `cloudhsm`: what AWS CloudHSM does and SoftHSM hides."""

import ctypes
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

from signer.demo.stack import Token
from softhsm.shim.client import Shim
from tests.hsm.conftest import SECOND_LABEL
from tests.hsm.shim.conftest import OpenClient, StartProcess
from tests.hsm.shim.raw import (
    CKM_RSA_PKCS,
    CKR_OK,
    AttributeOf,
    MechanismOf,
    call,
    handle_of,
    private_key,
    sign,
)

CKR_KEY_HANDLE_INVALID = 0x060
CKR_OBJECT_HANDLE_INVALID = 0x082
CKR_ATTRIBUTE_TYPE_INVALID = 0x012
CKR_FUNCTION_NOT_SUPPORTED = 0x054
CK_UNAVAILABLE_INFORMATION = ctypes.c_ulong(-1).value


@pytest.fixture
def cloudhsm(shim: Shim) -> Shim:
    """The shim with the preset, at full speed."""
    shim.preset("cloudhsm", latency=False)
    return shim


@pytest.fixture
def session(cloudhsm: Shim, open_client: OpenClient) -> pkcs11.Session:
    """A session under the preset."""
    del cloudhsm
    return open_client().open_session()


def signs(session: int, key: int) -> bytes | int:
    """Sign by handles; gives the signature, or what C_SignInit answered."""
    code = call("C_SignInit", session, ctypes.byref(MechanismOf(CKM_RSA_PKCS)), key)
    if code != CKR_OK:
        return code
    signature, size = ctypes.create_string_buffer(256), ctypes.c_ulong(256)
    assert call("C_Sign", session, b"\1" * 32, 32, signature, ctypes.byref(size)) == CKR_OK
    return signature.raw


def test_read_only_sessions_are_refused(session: pkcs11.Session) -> None:
    """C_OpenSession without CKF_RW_SESSION answers CKR_FUNCTION_FAILED."""
    with pytest.raises(pkcs11.FunctionFailed):
        session.token.open(rw=False)
    session.token.open(rw=True)


def test_a_handle_belongs_to_its_session(session: pkcs11.Session, shim: Shim) -> None:
    """On another session it is nobody's, or another key's; never the right one."""
    other = session.token.open(rw=True)
    labels = {"first": "test-settlement-key", "second": SECOND_LABEL}
    here = {name: private_key(session, label).handle for name, label in labels.items()}
    there = {name: private_key(other, label).handle for name, label in labels.items()}
    right = {name: signs(handle_of(session), handle) for name, handle in here.items()}
    assert {name: signs(handle_of(other), handle) for name, handle in there.items()} == right
    assert here["second"] == there["first"]
    assert signs(handle_of(other), here["second"]) == right["first"]
    assert signs(handle_of(session), there["second"]) == CKR_KEY_HANDLE_INVALID
    attribute = AttributeOf(Attribute.LABEL)
    answered = call("C_GetAttributeValue", handle_of(session), there["second"], ctypes.byref(attribute), 1)
    assert answered == CKR_OBJECT_HANDLE_INVALID
    shim.preset("none")
    assert here["first"] != private_key(session).handle == private_key(other).handle


@pytest.mark.parametrize("said", [{}, {Attribute.EXTRACTABLE: False}], ids=["nothing", "no"])
def test_generated_keys_are_extractable_unless_told(session: pkcs11.Session, said: dict[Attribute, bool]) -> None:
    """A private key is extractable if its template leaves it open."""
    _public, private = session.generate_keypair(KeyType.RSA, 2048, store=False, private_template=said)
    assert private[Attribute.EXTRACTABLE] is not bool(said)
    secret = session.generate_key(KeyType.AES, 256, store=False, template=said)
    assert secret[Attribute.EXTRACTABLE] is not bool(said)


@pytest.mark.parametrize("said", [{}, {Attribute.EXTRACTABLE: False}], ids=["nothing", "no"])
def test_created_keys_are_extractable_unless_told(session: pkcs11.Session, said: dict[Attribute, bool]) -> None:
    """So is a key that is put in."""
    template = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
    created = session.create_object({**template, Attribute.TOKEN: False, Attribute.VALUE: b"\1" * 16, **said})
    assert created[Attribute.EXTRACTABLE] is not bool(said)


def test_other_objects_are_created_as_they_are(session: pkcs11.Session) -> None:
    """What has no EXTRACTABLE gets none."""
    data = {Attribute.CLASS: ObjectClass.DATA, Attribute.TOKEN: False, Attribute.VALUE: b"data"}
    assert session.create_object(data)[Attribute.VALUE] == b"data"


def test_the_size_of_a_private_key_is_not_told(session: pkcs11.Session) -> None:
    """MODULUS_BITS is unavailable, its neighbours in the same call are told; a public key tells it.

    SoftHSM does so by itself, and the shim lets it.
    """
    template = (AttributeOf * 3)(*map(AttributeOf, (Attribute.LABEL, Attribute.MODULUS_BITS, Attribute.SIGN)))
    key = private_key(session).handle
    assert call("C_GetAttributeValue", handle_of(session), key, template, 3) == CKR_ATTRIBUTE_TYPE_INVALID
    assert [each.size for each in template] == [len("test-settlement-key"), CK_UNAVAILABLE_INFORMATION, 1]
    assert template[0].value == b"test-settlement-key"
    public = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label="test-settlement-key")
    assert public[Attribute.MODULUS_BITS] == 2048


@pytest.mark.parametrize(
    "function",
    ["C_SetAttributeValue", "C_CopyObject", "C_SetPIN", "C_WaitForSlotEvent", "C_SignUpdate", "C_SignFinal"],
)
def test_what_is_not_supported(cloudhsm: Shim, function: str) -> None:
    """These answer CKR_FUNCTION_NOT_SUPPORTED, which is an answer of the shim's."""
    assert call(function, 0, 0, 0, 0, 0, 0) == CKR_FUNCTION_NOT_SUPPORTED
    cloudhsm.preset("none")
    call(function, 0, 0, 0, 0, 0, 0)
    assert cloudhsm.counts()[function].answered == 1


def test_throttling(session: pkcs11.Session, shim: Shim) -> None:
    """Beyond the rate C_Sign fails and attributes cannot be read; the session is as good as before, once it is over."""
    key = private_key(session)
    good = sign(key)
    with shim.throttle(0.0001):
        assert sign(key) == good
        with pytest.raises(pkcs11.FunctionFailed):
            sign(key)
        with pytest.raises(pkcs11.DeviceError):
            key[Attribute.LABEL]
    assert sign(key) == good
    assert key[Attribute.LABEL] == "test-settlement-key"


def test_the_preset_throttles_what_comes_too_fast(session: pkcs11.Session, shim: Shim) -> None:
    """A tenth of a second's worth may come at once, and so again after another rate; without one, whatever comes."""
    key = private_key(session)
    good = sign(key)
    shim.preset("cloudhsm", latency=False, throttle_per_s=0.01)
    assert sign(key) == good
    with pytest.raises(pkcs11.FunctionFailed):
        sign(key)
    with shim.throttle(1000):
        assert [sign(key) for _ in range(3)] == [good] * 3
    assert sign(key) == good
    with pytest.raises(pkcs11.FunctionFailed):
        sign(key)
    shim.preset("cloudhsm", latency=False, throttle_per_s=0)
    assert [sign(key) for _ in range(300)] == [good] * 300


def test_signing_takes_its_time_if_asked(session: pkcs11.Session, shim: Shim) -> None:
    """With latency C_Sign is delayed by milliseconds, the size query is not; without it nothing is."""
    key = private_key(session)
    sign(key)
    assert shim.counts()["C_Sign"].delayed == 0
    shim.preset("cloudhsm")
    for _ in range(3):
        sign(key)
    counts = shim.counts()
    assert (counts["C_Sign"].delayed, counts["C_Sign:size"].delayed) == (3, 0)
    assert 2 < counts["C_Sign"].delay_min_ms < counts["C_Sign"].delay_max_ms < 25
    with shim.delay("C_Sign", fixed_ms=0.01):
        sign(key)
    assert shim.counts()["C_Sign"].delay_min_ms == 0.01
    sign(key)
    assert shim.counts()["C_Sign"].delay_sum_ms > counts["C_Sign"].delay_sum_ms + 2


def test_no_process_has_more_than_1024_sessions(session: pkcs11.Session) -> None:
    """One more is CKR_SESSION_COUNT."""
    opened = [session.token.open(rw=True) for _ in range(1022)]
    assert len({handle_of(each) for each in opened}) == 1022
    with pytest.raises(pkcs11.SessionCount):
        session.token.open(rw=True)


def test_five_wrong_pins_lock_the_user(cloudhsm: Shim, open_client: OpenClient, pin: str) -> None:
    """From then on even the right PIN is refused; before that it wipes the slate clean, and no user is no wrong PIN."""
    answers = []
    for attempt in ["user:wrong"] * 4 + ["nobody"] * 5 + [pin] + ["user:wrong"] * 5 + [pin, "user:wrong"]:
        try:
            open_client(attempt)
        except pkcs11.PKCS11Error as error:
            answers.append(type(error).__name__)
        else:
            answers.append("logged in")
    assert answers == ["PinIncorrect"] * 9 + ["logged in"] + ["PinIncorrect"] * 5 + ["PinLocked"] * 2
    assert cloudhsm.counts().wrong_pins == 14


def test_the_lock_is_that_of_all_processes(
    start_process: StartProcess, other_shim: Shim, token: Token, tmp_path: Path
) -> None:
    """Five processes with a wrong PIN lock a sixth out, until somebody unlocks the user."""
    wrong = replace(token, pin_file=tmp_path / "wrong-pin")
    wrong.pin_file.write_text("signer-dev:wrong")
    preset = {"SIGNER_SHIM_PRESET": "cloudhsm", "SIGNER_SHIM_LATENCY": "0"}
    began = [start_process(wrong, **preset).began for _ in range(5)] + [start_process(**preset).began]
    assert began == ["PinIncorrect"] * 5 + ["PinLocked"]
    other_shim.reset()
    assert start_process(**preset).ask("sign") == "done"
