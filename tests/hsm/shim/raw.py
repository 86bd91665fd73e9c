"""The shim's functions as C has them, and the token through python-pkcs11, without anything of the service between."""

import ctypes
import functools
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from pkcs11 import Attribute, Mechanism, ObjectClass, _pkcs11
from pkcs11.types import SignMixin

from softhsm.shim.client import LIBRARY
from tests.hsm.conftest import GOOD_LABEL

CKR_OK = 0x000
CKM_RSA_PKCS = 0x001
CKU_USER = 1
CKF_OS_LOCKING_OK = 2


class AttributeOf(ctypes.Structure):
    """CK_ATTRIBUTE, with room for a short value."""

    _fields_ = (("type", ctypes.c_ulong), ("value", ctypes.c_char_p), ("size", ctypes.c_ulong))

    def __init__(self, attribute: Attribute, size: int = 64) -> None:
        self._room = ctypes.create_string_buffer(size)
        super().__init__(attribute, ctypes.cast(self._room, ctypes.c_char_p), size)


class MechanismOf(ctypes.Structure):
    """CK_MECHANISM without a parameter."""

    _fields_ = (("type", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("size", ctypes.c_ulong))


@functools.cache
def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(str(LIBRARY))


def call(function: str, *arguments: Any) -> int:
    """Call the function; whole numbers are handles, sizes and NULL."""
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    callee = _shim()[function]
    callee.restype = ctypes.c_ulong
    return int(callee(*words))


class RefusedError(Exception):
    """C_Initialize answered this."""


class _Library(_pkcs11.lib):
    def initialize(self) -> None:
        # CK_C_INITIALIZE_ARGS: four functions for mutexes, flags, a reserved pointer. python-pkcs11 gives none, which
        # promises that there is only one thread.
        code = call("C_Initialize", (ctypes.c_ulong * 6)(0, 0, 0, 0, CKF_OS_LOCKING_OK, 0))
        if code != CKR_OK:
            raise RefusedError(hex(code))


class Client:
    """One who uses the token through the shim in this process; a session holds the login, as in the service."""

    def __init__(self, token_label: str, pin: str) -> None:
        self._library = _Library(str(LIBRARY))
        self.token = self._library.get_token(token_label=token_label)
        try:
            self.token.open(rw=True, user_pin=pin)
        except pkcs11.PKCS11Error:
            self.close()
            raise

    def open_session(self) -> pkcs11.Session:
        """Open a session as the service does."""
        return self.token.open(rw=True)

    def close(self) -> None:
        """C_Finalize closes what is open; it does no harm a second time."""
        call("C_Finalize", 0)


def private_key(session: pkcs11.Session, label: str = GOOD_LABEL) -> Any:
    """Look up the one private key with this label."""
    key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label)
    assert isinstance(key, SignMixin)
    return key


def public_half(key: Any) -> RSAPublicKey:
    """Give the public key of a private one."""
    modulus, exponent = (int.from_bytes(key[name], "big") for name in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
    return RSAPublicNumbers(exponent, modulus).public_key()


def sign(key: Any, data: bytes = b"\1" * 32) -> bytes:
    """Sign by CKM_RSA_PKCS, which gives the same bytes every time."""
    return bytes(key.sign(data, mechanism=Mechanism.RSA_PKCS))


def handle_of(session: pkcs11.Session) -> int:
    """Give the session's handle."""
    return int(session.handle)  # type: ignore[attr-defined] # the stub leaves it out


def log_in(session: pkcs11.Session, pin: str) -> None:
    """Log the process in, through a session that is there already."""
    assert call("C_Login", handle_of(session), CKU_USER, pin.encode(), len(pin)) == CKR_OK
