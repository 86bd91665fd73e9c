"""The catalogue: every way in which the drill lets the HSM fail."""

import signal
from collections.abc import Sequence
from typing import Final

from signer.drill.exercise import Begin, Exercise, Kind, Lasts
from signer.drill.stage import Stage
from softhsm.shim.client import Fault


def _fail(function: str, code: str, *, times: int = -1, probability: float = 1.0) -> Begin:
    return lambda stage: [stage.shim.fail(function, code, times=times, probability=probability)]


def _together(*begins: Begin) -> Begin:
    return lambda stage: [fault for begin in begins for fault in begin(stage)]


def _close_sessions(stage: Stage) -> Sequence[Fault]:
    stage.shim.close_sessions()
    return ()


def _drop_login(stage: Stage) -> Sequence[Fault]:
    stage.shim.drop_login()
    return ()


def _away(code: str, *, rebuild: bool) -> Begin:
    return lambda stage: [stage.shim.device_away(code, rebuild=rebuild)]


def _finalised(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.device_away("CKR_CRYPTOKI_NOT_INITIALIZED", for_s=0, rebuild=True)]


def _slow(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.delay("C_Sign", lognormal_ms=(50, 200))]


def _hang(function: str, *, times: int = -1) -> Begin:
    return lambda stage: [stage.shim.hang(function, times=times)]


def _hang_and_finalise(stage: Stage) -> Sequence[Fault]:
    hung = stage.shim.hang("C_Sign", times=1)
    hung.wait_for()
    return [hung, *_finalised(stage)]


def _crash(by: signal.Signals) -> Begin:
    return lambda stage: [stage.shim.crash(by=by)]


def _flip(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.spoil_signatures("flip", times=1)]


def _flip_all(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.spoil_signatures("flip")]


def _truncate(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.spoil_signatures("truncate", times=1)]


def _other_key(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.sign_with_other_key(stage.other_label or "", times=1)]


def _cap(stage: Stage) -> Sequence[Fault]:
    # One for the login, one to sign with.
    return [stage.shim.cap_sessions(2)]


def _throttle(stage: Stage) -> Sequence[Fault]:
    return [stage.shim.throttle(10)]


def _kill_while_away(stage: Stage) -> Sequence[Fault]:
    # Of each process that comes, the device is away from its start on, until the reset.
    stage.shim.at_start().device_away()
    stage.shim.crash(by=signal.SIGKILL)
    return [Fault(stage.shim.reset)]


_SEVERAL: Final = 8  # more than there are sessions
_MIXTURE: Final = _together(
    _fail("C_Sign", "CKR_SESSION_HANDLE_INVALID", probability=0.1),
    _fail("C_SignInit", "CKR_KEY_HANDLE_INVALID", probability=0.1),
    _fail("C_OpenSession", "CKR_DEVICE_ERROR", probability=0.1),
    _fail("C_FindObjectsInit", "CKR_FUNCTION_FAILED", probability=0.1),
    _slow,
)
# Only sessions that were never logged in find no key, instead of holding dead handles.
_UNSEEN_KEY: Final = _together(_drop_login, _fail("C_Sign", "CKR_SESSION_CLOSED", times=_SEVERAL))
_NO_SESSION: Final = _together(
    _fail("C_OpenSession", "CKR_SESSION_COUNT"), _fail("C_Sign", "CKR_SESSION_CLOSED", times=_SEVERAL)
)
_AWHILE: Final = Lasts.A_WHILE

_SESSION: Final = (
    Exercise("all sessions closed", Kind.SESSION, _close_sessions),
    Exercise("session handles invalid", Kind.SESSION, _fail("C_Sign", "CKR_SESSION_HANDLE_INVALID", times=_SEVERAL)),
    Exercise("sessions closed in C_SignInit", Kind.SESSION, _fail("C_SignInit", "CKR_SESSION_CLOSED", times=_SEVERAL)),
    Exercise(
        "one session in three dies", Kind.SESSION, _fail("C_Sign", "CKR_SESSION_CLOSED", probability=0.33), _AWHILE
    ),
    Exercise("no session to be had", Kind.SESSION, _NO_SESSION, _AWHILE),
    Exercise("too few sessions", Kind.SESSION, _together(_cap, _close_sessions), _AWHILE),
    Exercise("operation active", Kind.SESSION, _fail("C_SignInit", "CKR_OPERATION_ACTIVE", times=_SEVERAL)),
    Exercise("operation lost", Kind.SESSION, _fail("C_Sign", "CKR_OPERATION_NOT_INITIALIZED", times=_SEVERAL)),
    Exercise("host memory", Kind.SESSION, _fail("C_Sign", "CKR_HOST_MEMORY", times=_SEVERAL)),
    Exercise("arguments bad", Kind.SESSION, _fail("C_SignInit", "CKR_ARGUMENTS_BAD", times=2)),
    Exercise("a vendor's own code", Kind.SESSION, _fail("C_Sign", "0x80000123", times=3)),
    Exercise(
        "sessions that do not close",
        Kind.SESSION,
        _together(
            _fail("C_CloseSession", "CKR_GENERAL_ERROR", times=2), _fail("C_Sign", "CKR_SESSION_CLOSED", times=_SEVERAL)
        ),
    ),
)
_LOGIN: Final = (
    Exercise("login dropped", Kind.LOGIN, _drop_login),
    Exercise("user not logged in", Kind.LOGIN, _fail("C_SignInit", "CKR_USER_NOT_LOGGED_IN", times=_SEVERAL)),
    Exercise("key handles invalid", Kind.LOGIN, _fail("C_SignInit", "CKR_KEY_HANDLE_INVALID", times=_SEVERAL)),
    Exercise("object handles invalid", Kind.LOGIN, _fail("C_SignInit", "CKR_OBJECT_HANDLE_INVALID", times=_SEVERAL)),
    Exercise("key not to be found", Kind.LOGIN, _UNSEEN_KEY),
    Exercise("login throttled", Kind.LOGIN, _together(_fail("C_Login", "CKR_FUNCTION_FAILED", times=2), _drop_login)),
)
_REBUILD: Final = (
    Exercise(
        "login meets a device error",
        Kind.REBUILD,
        _together(_fail("C_Login", "CKR_DEVICE_ERROR", times=2), _drop_login),
    ),
    Exercise("general error", Kind.REBUILD, _fail("C_SignInit", "CKR_GENERAL_ERROR"), _AWHILE),
    Exercise("device error", Kind.REBUILD, _fail("C_Sign", "CKR_DEVICE_ERROR"), _AWHILE),
    Exercise("device error now and then", Kind.REBUILD, _fail("C_Sign", "CKR_DEVICE_ERROR", probability=0.2), _AWHILE),
    Exercise("device memory", Kind.REBUILD, _fail("C_Sign", "CKR_DEVICE_MEMORY", times=_SEVERAL)),
    Exercise("device away", Kind.REBUILD, _away("CKR_DEVICE_REMOVED", rebuild=False), _AWHILE, 3),
    Exercise("device away, stale after", Kind.REBUILD, _away("CKR_DEVICE_REMOVED", rebuild=True), _AWHILE, 3),
    Exercise("token not present", Kind.REBUILD, _away("CKR_TOKEN_NOT_PRESENT", rebuild=True), _AWHILE, 3),
    Exercise("module finalised", Kind.REBUILD, _finalised),
    Exercise(
        "rebuild fails at first",
        Kind.REBUILD,
        _together(_fail("C_Initialize", "CKR_GENERAL_ERROR", times=2), _finalised),
    ),
    Exercise(
        "finalising fails once", Kind.REBUILD, _together(_fail("C_Finalize", "CKR_GENERAL_ERROR", times=1), _finalised)
    ),
    Exercise(
        "no token after the rebuild",
        Kind.REBUILD,
        _together(_fail("C_GetTokenInfo", "CKR_TOKEN_NOT_PRESENT"), _finalised),
        _AWHILE,
    ),
    Exercise("a mixture at random", Kind.REBUILD, _MIXTURE, _AWHILE, 3),
)
_THROTTLE: Final = (
    Exercise("throttled to 10/s", Kind.THROTTLE, _throttle, _AWHILE, 3),
    Exercise("throttled, sessions lost", Kind.THROTTLE, _together(_throttle, _close_sessions), _AWHILE, 3),
    Exercise(
        "every other call throttled", Kind.THROTTLE, _fail("C_Sign", "CKR_FUNCTION_FAILED", probability=0.5), _AWHILE
    ),
    Exercise(
        "reading attributes throttled",
        Kind.THROTTLE,
        _together(_fail("C_GetAttributeValue", "CKR_DEVICE_ERROR", times=_SEVERAL), _close_sessions),
    ),
    Exercise("every call throttled", Kind.THROTTLE, _fail("C_SignInit", "CKR_FUNCTION_FAILED"), _AWHILE),
    Exercise("signatures are slow", Kind.THROTTLE, _slow, _AWHILE, 3, silent=True),
)
_HANG: Final = (
    Exercise("one call hangs", Kind.HANG, _hang("C_Sign", times=1), Lasts.UNTIL_NOTICED, 2.5),
    Exercise(
        "looking up a key hangs", Kind.HANG, _together(_hang("C_FindObjects", times=1), _close_sessions), _AWHILE, 2.5
    ),
    Exercise(
        "closing a session hangs",
        Kind.HANG,
        _together(_hang("C_CloseSession", times=2), _fail("C_Sign", "CKR_SESSION_CLOSED", times=_SEVERAL)),
        _AWHILE,
        2.5,
    ),
    Exercise("login hangs", Kind.HANG, _together(_hang("C_Login", times=1), _drop_login), _AWHILE, 2.5),
    Exercise("a hung call bars the rebuild", Kind.HANG, _hang_and_finalise, _AWHILE, 2.5),
    *(
        Exercise(name, Kind.HANG, begin, Lasts.UNTIL_DEATH, 0, kills=True)
        for name, begin in (
            ("login hangs for good", _together(_hang("C_Login"), _drop_login)),
            ("initialising hangs for good", _together(_hang("C_Initialize"), _finalised)),
            ("every call hangs", _hang("C_Sign")),
        )
    ),
)
_CRASH: Final = (
    Exercise("killed in C_Sign", Kind.CRASH, _crash(signal.SIGKILL), Lasts.UNTIL_DEATH, 0, kills=True),
    Exercise("crashed in C_Sign", Kind.CRASH, _crash(signal.SIGSEGV), Lasts.UNTIL_DEATH, 0, kills=True),
    Exercise("killed while the device is away", Kind.CRASH, _kill_while_away, _AWHILE, 4, kills=True),
)
_SIGNATURE: Final = (
    Exercise("one bit wrong", Kind.SIGNATURE, _flip),
    Exercise("one signature too short", Kind.SIGNATURE, _truncate),
    Exercise("one signature by another key", Kind.SIGNATURE, _other_key, needs_other_key=True),
)
_OPERATOR: Final = (
    Exercise("every signature wrong", Kind.OPERATOR, _flip_all, _AWHILE, act=Stage.clear_breaker),
    Exercise(
        "PIN refused",
        Kind.OPERATOR,
        _together(_fail("C_Login", "CKR_PIN_INCORRECT", times=1), _drop_login),
        _AWHILE,
        act=lambda stage: stage.supervisor.restart(),
    ),
)
EXERCISES: Final = (*_SESSION, *_LOGIN, *_REBUILD, *_THROTTLE, *_HANG, *_CRASH, *_SIGNATURE, *_OPERATOR)
