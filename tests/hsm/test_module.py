"""The module is loaded for many threads, logged in once, and left alone by forked children."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from signer.deadlines import Deadline
from signer.demo.stack import Token
from signer.errors import HsmConfigurationError, HsmUnavailableError, LoginRefusedError
from signer.hsm.connection import Connection
from signer.hsm.errors import Fate
from signer.hsm.hung_calls import HungCalls
from signer.hsm.module import Module, crypto_user_of, handle_of
from signer.metrics import Metrics
from signer.ports import SignTask
from signer.signatures import DEFAULT_ALGORITHM
from tests.hsm.conftest import OpenKeyRing, journal_of
from tests.hsm.tap import CKR_CANT_LOCK, answer, log_out, once, tapped

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
        Module(softhsm.module, softhsm.label, attempts=2).close()
        assert tap.calls["C_Initialize"] == 2


@contextmanager
def connected(softhsm: Token, *pins: str) -> Iterator[Connection]:
    """Open the connection; each login is with the next PIN."""
    journal, left = journal_of(Metrics(CollectorRegistry())), list(pins)
    with closing(HungCalls(30, 1, os.abort, journal)) as hung_calls:
        connection = Connection(softhsm.module, softhsm.label, lambda: left.pop(0), hung_calls, journal)
        with closing(connection):
            yield connection


def test_a_wrong_pin_is_tried_once(softhsm: Token) -> None:
    """One C_Login reaches the token, and the refusal does not repeat the PIN."""
    with tapped(softhsm.module) as tap:
        with (
            pytest.raises(LoginRefusedError, match="C_Login failed: CKR_PIN_INCORRECT") as caught,
            connected(softhsm, "signer-dev:wrong-canary"),
        ):
            pass
        assert tap.calls["C_Login"] == 1
    assert "canary" not in str(caught.value)


def test_a_pin_that_was_changed_meanwhile_is_tried_once(softhsm: Token, pin: str) -> None:
    """When the login is lost and the PIN is no longer right, one try is made; after it nobody asks the HSM again."""
    with tapped(softhsm.module) as tap:
        with connected(softhsm, pin, "signer-dev:wrong-canary") as connection:
            with connection.lend(Deadline.after(30)) as lent:
                session = lent.module.open_session()
                log_out(softhsm.module, handle_of(session))
            for _ in range(3):
                with pytest.raises(LoginRefusedError):
                    connection.mend(Fate.LOG_IN, connection.generation, Deadline.after(30))
        assert tap.calls["C_Login"] == 2


def test_a_module_that_others_initialised_is_refused(softhsm: Token) -> None:
    """What somebody initialised before us may have been promised one thread: its locking is unknown."""
    first = Module(softhsm.module, softhsm.label)
    with closing(first), pytest.raises(HsmConfigurationError, match="initialised already in this process"):
        Module(softhsm.module, softhsm.label)


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
    """In a child the very first use is refused at once: it has neither the sessions nor the threads of its parent."""
    opened = open_key_ring()
    task = SignTask(opened.key_ring.key("settlement"), DEFAULT_ALGORITHM, bytes(32))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        (answered,) = opened.key_ring.sign([task], Deadline.after(60))
        os.write(write_end, str(answered).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert b"forked" in said


def test_the_module_is_finalised_last_and_once(softhsm: Token, pin: str) -> None:
    """Closing finalises, once however often it is asked for; a session closed after that reaches nobody."""
    with tapped(softhsm.module) as tap:
        module = Module(softhsm.module, softhsm.label)
        assert module.log_in(pin)
        assert not module.log_in(pin)
        session = module.open_session()
        assert tap.calls["C_Finalize"] == 0
        module.close()
        closed = tap.calls["C_CloseSession"]
        module.close()
        module.close_session(session)
        assert (tap.calls["C_CloseSession"], tap.calls["C_Finalize"]) == (closed, 1)


def test_the_crypto_user_comes_from_the_pin() -> None:
    """CloudHSM's PIN names its user; elsewhere the settings must, and the PIN is not repeated when they do not."""
    assert crypto_user_of("signer-prod:secret", None) == "signer-prod"
    assert crypto_user_of("1234", "signer-dev") == "signer-dev"
    with pytest.raises(HsmConfigurationError) as caught:
        crypto_user_of("canary1234", None)
    assert "canary" not in str(caught.value)
