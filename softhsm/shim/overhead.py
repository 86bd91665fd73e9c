"""Prints what the shim costs: `python -m softhsm.shim.overhead`.

SoftHSM and the shim over it are measured in turns, in one process, on one token, so that whatever else the machine does
meets them alike.
"""

import ctypes
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from softhsm.provision import provision
from softhsm.shim.client import LIBRARY, Shim

_ROUNDS: Final = 25
_ROUND_S: Final = 0.3
_IDLE_CALLS: Final = 50_000
_LABEL: Final = b"key"
_WORD: Final = ctypes.c_ulong
_CKF_RW_SERIAL: Final = 6


class _Attribute(ctypes.Structure):
    _fields_ = (("type", _WORD), ("value", ctypes.c_char_p), ("size", _WORD))


class _Mechanism(ctypes.Structure):
    _fields_ = (("type", _WORD), ("parameter", ctypes.c_void_p), ("size", _WORD))


class Caller:
    """A module as C has it."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def __call__(self, function: str, *arguments: object) -> None:
        """Call a function that is to answer CKR_OK."""
        words = [_WORD(each) if isinstance(each, int) else each for each in arguments]
        if code := self._library[function](*words):
            msg = f"{function} answered {code:#x}"
            raise RuntimeError(msg)

    def session(self, slot: int) -> tuple[int, int]:
        """Open a session and look the private key up in it: the handles of both."""
        session, key, count = _WORD(), _WORD(), _WORD()
        self("C_OpenSession", slot, _CKF_RW_SERIAL, None, None, ctypes.byref(session))
        kind = ctypes.cast(ctypes.create_string_buffer(bytes(_WORD(3)), 8), ctypes.c_char_p)
        template = (_Attribute * 2)(_Attribute(0, kind, 8), _Attribute(3, _LABEL, len(_LABEL)))
        self("C_FindObjectsInit", session, template, 2)
        self("C_FindObjects", session, ctypes.byref(key), 1, ctypes.byref(count))
        self("C_FindObjectsFinal", session)
        return session.value, key.value

    def idle_ns(self, session: int) -> float:
        """Time a call that does next to nothing."""
        function, handle, info = self._library["C_GetSessionInfo"], _WORD(session), ctypes.create_string_buffer(64)
        began = time.perf_counter_ns()
        for _ in range(_IDLE_CALLS):
            function(handle, info)
        return (time.perf_counter_ns() - began) / _IDLE_CALLS

    def sign_until(self, end_s: float, session: int, key: int) -> int:
        """Sign, as python-pkcs11 does it, with a size query; gives how often."""
        mechanism, signature, size = _Mechanism(1, None, 0), ctypes.create_string_buffer(256), _WORD(256)
        done = 0
        while time.perf_counter() < end_s:
            self("C_SignInit", session, ctypes.byref(mechanism), key)
            self("C_Sign", session, bytes(32), 32, None, ctypes.byref(size))
            self("C_Sign", session, bytes(32), 32, signature, ctypes.byref(size))
            done += 1
        return done


def signs_per_s(caller: Caller, slot: int, threads: int) -> float:
    """Let so many threads sign for a while, each on a session of its own."""
    handles = [caller.session(slot) for _ in range(threads)]
    end_s = time.perf_counter() + _ROUND_S
    done: list[int] = []
    workers = [
        threading.Thread(target=lambda each=each: done.append(caller.sign_until(end_s, *each))) for each in handles
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for session, _key in handles:
        caller("C_CloseSession", session)
    return sum(done) / _ROUND_S


def in_turns(measures: dict[str, Callable[[], float]]) -> list[dict[str, float]]:
    """Measure each once a round."""
    return [{name: measure() for name, measure in measures.items()} for _ in range(_ROUNDS)]


def main() -> None:
    """Make a token, measure, print."""
    with tempfile.TemporaryDirectory() as directory:
        made = provision(Path(directory) / "token", "overhead", [_LABEL.decode()])
        shim = Shim(Path(directory) / "shim")
        os.environ |= shim.environment(Path(made.module))
        plain, shimmed = Caller(Path(made.module)), Caller(LIBRARY)
        shimmed("C_Initialize", (_WORD * 6)(0, 0, 0, 0, 2, 0))
        slots, count = (_WORD * 2)(), _WORD(2)
        shimmed("C_GetSlotList", 1, slots, ctypes.byref(count))
        login_session, _key = shimmed.session(slots[0])
        pin = Path(made.pin_file).read_bytes()
        shimmed("C_Login", login_session, 1, pin, len(pin))
        print_idle(plain, shimmed, login_session)
        for threads in (1, 2, 8):
            print_rates(plain, shimmed, shim, slots[0], threads)
        shimmed("C_Finalize", None)


def print_idle(plain: Caller, shimmed: Caller, session: int) -> None:
    """Print what a call costs that does next to nothing."""
    rounds = in_turns({"plain": lambda: plain.idle_ns(session), "shim": lambda: shimmed.idle_ns(session)})
    took_ns = statistics.median(each["plain"] for each in rounds)
    added_ns = statistics.median(each["shim"] - each["plain"] for each in rounds)
    say(f"a call of nothing from Python: {took_ns:.0f} ns, by the shim {added_ns:+.0f} ns")


def print_rates(plain: Caller, shimmed: Caller, shim: Shim, slot: int, threads: int) -> None:
    """Print signatures a second, and what part of them is left with the shim between."""

    def as_cloudhsm() -> float:
        shim.preset("cloudhsm", latency=False)
        try:
            return signs_per_s(shimmed, slot, threads)
        finally:
            shim.preset("none")

    measures: dict[str, Callable[[], float]] = {
        "plain": lambda: signs_per_s(plain, slot, threads),
        "shim": lambda: signs_per_s(shimmed, slot, threads),
        "cloudhsm": as_cloudhsm,
    }
    rounds = in_turns(measures)
    rate = statistics.median(each["plain"] for each in rounds)
    left = {name: statistics.median(each[name] / each["plain"] for each in rounds) for name in ("shim", "cloudhsm")}
    say(f"{threads} threads: {rate:.0f}/s plain; shim {left['shim']:.3f}, cloudhsm {left['cloudhsm']:.3f} of it")


def say(line: str) -> None:
    """Print one line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
