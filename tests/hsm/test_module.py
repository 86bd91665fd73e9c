"""The module is loaded for many threads, logged in once, and left alone by forked children."""

import ctypes
import os
from contextlib import closing
from pathlib import Path

import pytest

from signer.demo.stack import Token
from signer.errors import HsmConfigurationError, HsmUnavailableError, LoginRefusedError
from signer.hsm.module import Module, crypto_user_of
from tests.hsm.conftest import OpenKeyRing
from tests.hsm.tap import CKR_CANT_LOCK, answer, once, tapped

_CKR_GENERAL_ERROR = 0x005


def test_a_module_that_cannot_lock_is_refused(softhsm: Token) -> None:
    """CKR_CANT_LOCK ends the start with a message that says so."""
    with tapped(softhsm.module) as tap:
        tap.instead["C_Initialize"] = answer(CKR_CANT_LOCK)
        with pytest.raises(HsmConfigurationError, match="CKR_CANT_LOCK"):
            Module(softhsm.module, softhsm.label)
        assert tap.calls["C_Initialize"] == 1


def test_initialisation_asks_for_os_locking(softhsm: Token) -> None:
    """C_Initialize gets arguments whose flags say CKF_OS_LOCKING_OK, not the NULL that promises one thread."""
    seen: list[int] = []

    def look(real: object, arguments: int | None) -> int:
        assert arguments is not None
        # Four pointers to mutex functions stand before the flags in CK_C_INITIALIZE_ARGS.
        seen.append(ctypes.c_ulong.from_address(arguments + 4 * ctypes.sizeof(ctypes.c_void_p)).value)
        assert callable(real)
        return int(real(arguments))

    with tapped(softhsm.module) as tap:
        tap.instead["C_Initialize"] = look
        Module(softhsm.module, softhsm.label).close()
    assert seen == [2]


def test_a_stumble_at_initialisation_is_tried_again(softhsm: Token) -> None:
    """Processes that start at once on one token may get in each other's way; initialisation is repeated."""
    with tapped(softhsm.module) as tap:
        tap.instead["C_Initialize"] = once(answer(_CKR_GENERAL_ERROR))
        Module(softhsm.module, softhsm.label).close()
        assert tap.calls["C_Initialize"] == 2


def test_a_wrong_pin_is_tried_once(softhsm: Token) -> None:
    """One C_Login reaches the token, and the refusal does not repeat the PIN."""
    with tapped(softhsm.module) as tap, closing(Module(softhsm.module, softhsm.label)) as module:
        with pytest.raises(LoginRefusedError) as caught:
            module.log_in("signer-dev:wrong-canary")
        assert tap.calls["C_Login"] == 1
    assert "canary" not in str(caught.value)


def test_an_unknown_token_is_named(softhsm: Token) -> None:
    """The token is looked for by label, and its absence is told with the label."""
    with pytest.raises(HsmConfigurationError, match="no token with the label elsewhere"):
        Module(softhsm.module, "elsewhere")


def test_an_absent_module_is_named(tmp_path: Path) -> None:
    """A path without a module, and a file that is none, are refused with the path."""
    with pytest.raises(HsmConfigurationError, match="no PKCS#11 module at"):
        Module(tmp_path / "absent.so", "any")
    (tmp_path / "text.so").write_text("no module")
    with pytest.raises((HsmConfigurationError, HsmUnavailableError)):
        Module(tmp_path / "text.so", "any")


def test_a_forked_child_may_not_sign(open_key_ring: OpenKeyRing) -> None:
    """In a child process the very first use is refused, before any call reaches the module."""
    opened = open_key_ring(warm=False)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"opened a session"
        try:
            opened.module.open_session()
        except HsmUnavailableError as error:
            said = error.message.encode()
        os.write(write_end, said)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert b"forked" in said


def test_the_module_is_finalised_last_and_once(softhsm: Token, pin: str) -> None:
    """Closing logs out by closing the login session, then finalises."""
    with tapped(softhsm.module) as tap:
        module = Module(softhsm.module, softhsm.label)
        module.log_in(pin)
        assert tap.calls["C_Finalize"] == 0
        module.close()
        assert (tap.calls["C_OpenSession"], tap.calls["C_CloseSession"], tap.calls["C_Finalize"]) == (1, 1, 1)


def test_the_crypto_user_comes_from_the_pin() -> None:
    """CloudHSM's PIN names its user; elsewhere the settings must, and the PIN is not repeated when they do not."""
    assert crypto_user_of("signer-prod:secret", None) == "signer-prod"
    assert crypto_user_of("1234", "signer-dev") == "signer-dev"
    with pytest.raises(HsmConfigurationError) as caught:
        crypto_user_of("canary1234", None)
    assert "canary" not in str(caught.value)
