"""A tap on a real PKCS#11 module: counts the calls that reach it, and changes answers where a test says so.

A module's functions are reached through one list of pointers (PKCS#11 2.40, section 5.1). The tap puts its own
pointers there, in this process only: whoever loads the same module goes through it, python-pkcs11 included.
"""

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

CKR_OK: Final = 0x000
CKR_HOST_MEMORY: Final = 0x002
CKR_CANT_LOCK: Final = 0x00A
CKR_DEVICE_ERROR: Final = 0x030

# The place of each function in CK_FUNCTION_LIST and how many arguments it takes; all of them fit a machine word.
_FUNCTIONS: Final = {
    "C_Initialize": (0, 1),
    "C_Finalize": (1, 1),
    "C_OpenSession": (12, 5),
    "C_CloseSession": (13, 1),
    "C_Login": (18, 4),
    "C_GetAttributeValue": (24, 4),
    "C_FindObjectsInit": (26, 3),
    "C_SignInit": (42, 3),
    "C_Sign": (43, 5),
}
_POINTER_SIZE: Final = ctypes.sizeof(ctypes.c_void_p)

Answer = Callable[..., int]


class Tap:
    """What came through, and what to answer instead."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.sessions_signed: list[int] = []
        """The session handle of every C_SignInit, in order."""
        self.instead: dict[str, Answer] = {}
        """Function name to what answers in the module's place; it is given the module's own function first."""

    def through(self, name: str, real: Callable[..., int], *arguments: Any) -> int:
        """Count one call and answer it."""
        self.calls[name] += 1
        if name == "C_SignInit":
            self.sessions_signed.append(arguments[0])
        answer = self.instead.get(name)
        return answer(real, *arguments) if answer is not None else real(*arguments)


@contextmanager
def tapped(module: Path) -> Iterator[Tap]:
    """Put a tap on `module` for the block."""
    tap = Tap()
    function_list = ctypes.c_void_p()
    assert ctypes.CDLL(str(module)).C_GetFunctionList(ctypes.byref(function_list)) == CKR_OK
    assert function_list.value is not None
    originals, kept_alive = {}, []
    for name, (index, arity) in _FUNCTIONS.items():
        prototype = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * arity)
        # The first pointer stands after the two bytes of the version, aligned.
        place = ctypes.c_void_p.from_address(function_list.value + _POINTER_SIZE * (1 + index))
        originals[name] = (place, place.value)
        replacement = prototype(_through(tap, name, prototype(place.value or 0)))
        kept_alive.append(replacement)
        place.value = ctypes.cast(replacement, ctypes.c_void_p).value
    try:
        yield tap
    finally:
        for place, value in originals.values():
            place.value = value


def _through(tap: Tap, name: str, real: Callable[..., int]) -> Callable[..., int]:
    return lambda *arguments: tap.through(name, real, *arguments)


def answer(code: int) -> Answer:
    """Answer `code` and leave the module alone."""
    return lambda _real, *_arguments: code


def once(first: Answer) -> Answer:
    """Answer as `first` says the first time, and let the module answer ever after."""
    pending = [first]
    return lambda real, *arguments: pending.pop()(real, *arguments) if pending else real(*arguments)


def flip_one_bit(real: Callable[..., int], *arguments: Any) -> int:
    """Let the module sign, and spoil one bit of what it signed."""
    code = real(*arguments)
    if arguments[3]:
        first_byte = ctypes.c_ubyte.from_address(arguments[3])
        first_byte.value ^= 1
    return code


def log_out(module: Path, session_handle: int) -> None:
    """Log the process out behind the service's back."""
    assert ctypes.CDLL(str(module)).C_Logout(ctypes.c_ulong(session_handle)) == CKR_OK


def close_all_sessions(module: Path, slot_id: int) -> None:
    """Close every session of the process behind the service's back, and the login with them."""
    assert ctypes.CDLL(str(module)).C_CloseAllSessions(ctypes.c_ulong(slot_id)) == CKR_OK


def finalize(module: Path) -> None:
    """Take the module down behind the service's back."""
    assert ctypes.CDLL(str(module)).C_Finalize(None) == CKR_OK
