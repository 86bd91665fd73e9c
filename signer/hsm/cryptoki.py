"""C_Initialize with OS locking, C_Finalize, C_Login, C_Sign: by ctypes, because python-pkcs11 does not offer them so.

python-pkcs11 calls `C_Initialize(NULL)`, which promises the module that only one thread will ever call it
(PKCS#11 2.40, section 5.4), and then releases the GIL around every call. Under two threads that is a crash. And it asks
the module for the size of every signature first, in a call of its own.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

from pkcs11 import _pkcs11

from signer.errors import HsmConfigurationError, HsmUnavailableError

CKR_OK: Final = 0x000
CKR_CANT_LOCK: Final = 0x00A
CKR_USER_ALREADY_LOGGED_IN: Final = 0x100
CKR_CRYPTOKI_NOT_INITIALIZED: Final = 0x190
CKR_CRYPTOKI_ALREADY_INITIALIZED: Final = 0x191
_CKF_OS_LOCKING_OK: Final = 0x2
_CKU_USER: Final = 1
_SIGNATURE_SIZE: Final = 256
_unfinalized: dict[Path, int] = {}
"""Modules that this process initialised with locking and could not finalise, with its number."""


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS; on Linux PKCS#11 structures have the platform's natural alignment."""

    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


class _PssParameters(ctypes.Structure):
    """CK_RSA_PKCS_PSS_PARAMS."""

    _fields_ = (("hash", ctypes.c_ulong), ("mask_generation", ctypes.c_ulong), ("salt_size", ctypes.c_ulong))


class _Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("parameter_size", ctypes.c_ulong))


class _FunctionList(ctypes.Structure):
    """The head of CK_FUNCTION_LIST; the specification fixes its order."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("c_initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("c_finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        # Sixteen functions that nobody needs here stand in between.
        ("others", ctypes.c_void_p * 16),
        (
            "c_login",
            ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong),
        ),
        ("more_others", ctypes.c_void_p * 23),
        (
            "c_sign_init",
            ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.POINTER(_Mechanism), ctypes.c_ulong),
        ),
        (
            "c_sign",
            ctypes.CFUNCTYPE(
                ctypes.c_ulong,
                ctypes.c_ulong,
                ctypes.c_char_p,
                ctypes.c_ulong,
                ctypes.c_void_p,
                ctypes.POINTER(ctypes.c_ulong),
            ),
        ),
    )


_PSS: Final = _PssParameters(hash=0x250, mask_generation=0x2, salt_size=32)  # SHA-256, MGF1 with SHA-256
# The module reads them only, so all threads may use the same.
_MECHANISMS: Final = {
    "CKM_RSA_PKCS": _Mechanism(mechanism=0x1),
    "CKM_RSA_PKCS_PSS": _Mechanism(0xD, ctypes.addressof(_PSS), ctypes.sizeof(_PSS)),
}


def _function_list(path: Path) -> _FunctionList:
    pointer = ctypes.POINTER(_FunctionList)()
    get_function_list = ctypes.CDLL(str(path)).C_GetFunctionList
    get_function_list.restype = ctypes.c_ulong
    if get_function_list(ctypes.byref(pointer)) != CKR_OK:
        msg = f"the PKCS#11 module {path} gives no function list"
        raise HsmConfigurationError(msg)
    return pointer.contents


def initialize(path: Path) -> None:
    """Initialise the module for use by many threads.

    Raises `HsmConfigurationError` if it cannot lock or if someone initialised it before us (with who knows what
    promise about threads), and `HsmUnavailableError` for anything that another try may cure.
    """
    code = _initialize(path)
    if code == CKR_CRYPTOKI_ALREADY_INITIALIZED and _unfinalized.get(path) == os.getpid():
        finalize(path)
        code = _initialize(path)
        if code == CKR_CRYPTOKI_ALREADY_INITIALIZED:
            msg = f"the PKCS#11 module {path} does not finalise"
            raise HsmUnavailableError(msg)
    if code == CKR_CANT_LOCK:
        msg = f"the PKCS#11 module {path} cannot be used by several threads (CKR_CANT_LOCK)"
        raise HsmConfigurationError(msg)
    if code == CKR_CRYPTOKI_ALREADY_INITIALIZED:
        msg = f"the PKCS#11 module {path} is initialised already in this process; its locking is unknown"
        raise HsmConfigurationError(msg)
    if code != CKR_OK:
        msg = f"the PKCS#11 module {path} does not initialise (CKR 0x{code:08X})"
        raise HsmUnavailableError(msg)
    _unfinalized.pop(path, None)


def _initialize(path: Path) -> int:
    arguments = _InitializeArgs(flags=_CKF_OS_LOCKING_OK)
    return int(_function_list(path).c_initialize(ctypes.byref(arguments)))


def log_in(path: Path, session_handle: int, pin: str) -> int:
    """Call C_Login and give its return code; python-pkcs11's own way leaks a session with every refusal."""
    octets = pin.encode()
    return int(_function_list(path).c_login(session_handle, _CKU_USER, octets, len(octets)))


class Signing:
    """C_SignInit and C_Sign of one loaded module."""

    def __init__(self, path: Path) -> None:
        functions = _function_list(path)
        # Taken out once: every look into the list makes a new object.
        self._init, self._sign = functions.c_sign_init, functions.c_sign

    def sign(self, session_handle: int, key_handle: int, mechanism: str, data: bytes) -> tuple[int, bytes]:
        """Sign on a session that nobody else uses: the return code of what failed first or CKR_OK, and the signature.

        `mechanism` is `CKM_RSA_PKCS` or `CKM_RSA_PKCS_PSS`; keys have 2,048 bits.
        """
        code = self._init(session_handle, _MECHANISMS[mechanism], key_handle)
        if code != CKR_OK:
            return code, b""
        buffer, size = ctypes.create_string_buffer(_SIGNATURE_SIZE), ctypes.c_ulong(_SIGNATURE_SIZE)
        code = self._sign(session_handle, data, len(data), buffer, size)
        return code, buffer.raw[: size.value]


def finalize(path: Path) -> None:
    """Give up everything the process holds in the module; if that fails, the next `initialize` tries again."""
    if _function_list(path).c_finalize(None) in (CKR_OK, CKR_CRYPTOKI_NOT_INITIALIZED):
        _unfinalized.pop(path, None)
    else:
        _unfinalized[path] = os.getpid()


class LockingLibrary(_pkcs11.lib):
    """python-pkcs11's library object over a module that `initialize` prepared; its end is `finalize` above.

    For python-pkcs11 it stays `initialized == False`, so that nothing but us finalises the module.
    """

    def __init__(self, so: str) -> None:
        super().__init__(so)
        # It lives as long as the process: its destructor would unload the module under sessions that still stand,
        # and fails when the interpreter takes this class down before it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))

    def initialize(self) -> None:
        """Replace the single-threaded C_Initialize that the base class would make."""
        initialize(Path(self.so))
