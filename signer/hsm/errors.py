"""The one table: every return code of PKCS#11 2.40 to our error, whether to try again, and the session's fate."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pkcs11

from signer.errors import HsmConfigurationError, HsmUnavailableError, LoginRefusedError, SignerError


class Fate(StrEnum):
    """What an error does to the session it happened on, and beyond it."""

    KEEP = "keep"
    """The session is sound; the HSM only said not now, or no."""
    DISCARD = "discard"
    """Close the session and open another."""
    LOG_IN = "log in again"
    """The login is gone, and with it every session's keys."""
    REBUILD = "rebuild"
    """Finalise and initialise the module, once no call is in flight."""
    FATAL = "fatal"
    """Nobody may try again until a person has looked."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    code: int
    name: str
    fate: Fate
    retry: bool
    """Whether the same request may be tried again within its deadline."""
    error: type[SignerError] = HsmUnavailableError

    @classmethod
    def unknown(cls, code: int) -> "Rule":
        """Give the row of a code in no specification: the session goes, and nothing is tried again blindly."""
        return cls(code, f"CKR 0x{code:08X}", Fate.DISCARD, retry=False)


_THROTTLED: Final = "CKR_FUNCTION_FAILED"
_LOGIN: Final = (Fate.FATAL, False, LoginRefusedError)
_CONFIGURATION: Final = (Fate.DISCARD, False, HsmConfigurationError)
_LOST_SESSION: Final = (Fate.DISCARD, True, HsmUnavailableError)
_LOST_LOGIN: Final = (Fate.LOG_IN, True, HsmUnavailableError)
_LOST_DEVICE: Final = (Fate.REBUILD, True, HsmUnavailableError)
_UNEXPECTED: Final = (Fate.DISCARD, False, HsmUnavailableError)

# By what they mean for a service that opens sessions, logs in, finds keys, reads attributes and signs. A code that no
# call of ours should ever answer with is `_UNEXPECTED`: the session goes, and the request is not tried again blindly.
_CODES: Final = {
    _LOGIN: {
        "CKR_PIN_INCORRECT": 0xA0, "CKR_PIN_INVALID": 0xA1, "CKR_PIN_LEN_RANGE": 0xA2, "CKR_PIN_EXPIRED": 0xA3,
        "CKR_PIN_LOCKED": 0xA4, "CKR_PIN_TOO_WEAK": 0x1C3, "CKR_USER_PIN_NOT_INITIALIZED": 0x102,
        "CKR_USER_TYPE_INVALID": 0x103, "CKR_USER_TOO_MANY_TYPES": 0x105, "CKR_NEW_PIN_MODE": 0x1B0,
        "CKR_NEXT_OTP": 0x1B1,
    },
    _LOST_LOGIN: {
        "CKR_USER_NOT_LOGGED_IN": 0x101, "CKR_KEY_HANDLE_INVALID": 0x60, "CKR_OBJECT_HANDLE_INVALID": 0x82,
    },
    _LOST_SESSION: {
        "CKR_CANCEL": 0x1, "CKR_HOST_MEMORY": 0x2, "CKR_FUNCTION_CANCELED": 0x50, "CKR_OPERATION_ACTIVE": 0x90,
        "CKR_OPERATION_NOT_INITIALIZED": 0x91, "CKR_SESSION_CLOSED": 0xB0, "CKR_SESSION_COUNT": 0xB1,
        "CKR_SESSION_HANDLE_INVALID": 0xB3, "CKR_MUTEX_BAD": 0x1A0, "CKR_MUTEX_NOT_LOCKED": 0x1A1,
        "CKR_BUFFER_TOO_SMALL": 0x150,
    },
    _LOST_DEVICE: {
        "CKR_SLOT_ID_INVALID": 0x3, "CKR_GENERAL_ERROR": 0x5, "CKR_DEVICE_ERROR": 0x30, "CKR_DEVICE_MEMORY": 0x31,
        "CKR_DEVICE_REMOVED": 0x32, "CKR_TOKEN_NOT_PRESENT": 0xE0, "CKR_TOKEN_NOT_RECOGNIZED": 0xE1,
        "CKR_CRYPTOKI_NOT_INITIALIZED": 0x190, "CKR_FIPS_SELF_TEST_FAILED": 0x1C1, "CKR_LIBRARY_LOAD_FAILED": 0x1C2,
    },
    _CONFIGURATION: {
        "CKR_NEED_TO_CREATE_THREADS": 0x9, "CKR_CANT_LOCK": 0xA, "CKR_FUNCTION_NOT_SUPPORTED": 0x54,
        "CKR_KEY_FUNCTION_NOT_PERMITTED": 0x68, "CKR_MECHANISM_INVALID": 0x70, "CKR_MECHANISM_PARAM_INVALID": 0x71,
        "CKR_CRYPTOKI_ALREADY_INITIALIZED": 0x191, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": 0x104,
        "CKR_KEY_SIZE_RANGE": 0x62, "CKR_KEY_TYPE_INCONSISTENT": 0x63,
    },
    _UNEXPECTED: {
        "CKR_ARGUMENTS_BAD": 0x7, "CKR_NO_EVENT": 0x8, "CKR_ATTRIBUTE_READ_ONLY": 0x10,
        "CKR_ATTRIBUTE_SENSITIVE": 0x11, "CKR_ATTRIBUTE_TYPE_INVALID": 0x12, "CKR_ATTRIBUTE_VALUE_INVALID": 0x13,
        "CKR_ACTION_PROHIBITED": 0x1B, "CKR_DATA_INVALID": 0x20, "CKR_DATA_LEN_RANGE": 0x21,
        "CKR_ENCRYPTED_DATA_INVALID": 0x40, "CKR_ENCRYPTED_DATA_LEN_RANGE": 0x41, "CKR_FUNCTION_NOT_PARALLEL": 0x51,
        "CKR_KEY_NOT_NEEDED": 0x64, "CKR_KEY_CHANGED": 0x65, "CKR_KEY_NEEDED": 0x66, "CKR_KEY_INDIGESTIBLE": 0x67,
        "CKR_KEY_NOT_WRAPPABLE": 0x69, "CKR_KEY_UNEXTRACTABLE": 0x6A, "CKR_SESSION_PARALLEL_NOT_SUPPORTED": 0xB4,
        "CKR_SESSION_READ_ONLY": 0xB5, "CKR_SESSION_EXISTS": 0xB6, "CKR_SESSION_READ_ONLY_EXISTS": 0xB7,
        "CKR_SESSION_READ_WRITE_SO_EXISTS": 0xB8, "CKR_SIGNATURE_INVALID": 0xC0, "CKR_SIGNATURE_LEN_RANGE": 0xC1,
        "CKR_TEMPLATE_INCOMPLETE": 0xD0, "CKR_TEMPLATE_INCONSISTENT": 0xD1, "CKR_TOKEN_WRITE_PROTECTED": 0xE2,
        "CKR_UNWRAPPING_KEY_HANDLE_INVALID": 0xF0, "CKR_UNWRAPPING_KEY_SIZE_RANGE": 0xF1,
        "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT": 0xF2, "CKR_WRAPPED_KEY_INVALID": 0x110,
        "CKR_WRAPPED_KEY_LEN_RANGE": 0x112, "CKR_WRAPPING_KEY_HANDLE_INVALID": 0x113,
        "CKR_WRAPPING_KEY_SIZE_RANGE": 0x114, "CKR_WRAPPING_KEY_TYPE_INCONSISTENT": 0x115,
        "CKR_RANDOM_SEED_NOT_SUPPORTED": 0x120, "CKR_RANDOM_NO_RNG": 0x121, "CKR_DOMAIN_PARAMS_INVALID": 0x130,
        "CKR_CURVE_NOT_SUPPORTED": 0x140, "CKR_SAVED_STATE_INVALID": 0x160, "CKR_INFORMATION_SENSITIVE": 0x170,
        "CKR_STATE_UNSAVEABLE": 0x180, "CKR_EXCEEDED_MAX_ITERATIONS": 0x1C0, "CKR_PUBLIC_KEY_INVALID": 0x1C4,
        "CKR_FUNCTION_REJECTED": 0x200,
    },
}  # fmt: skip
RULES: Final[dict[int, Rule]] = {
    rule.code: rule
    for rule in (
        # Overloaded: throttled, and the SDK has tried three times already. Waited out; never a reason to rebuild.
        Rule(0x6, _THROTTLED, Fate.KEEP, retry=True),
        # The login we asked for is there.
        Rule(0x100, "CKR_USER_ALREADY_LOGGED_IN", Fate.KEEP, retry=True),
        *(
            Rule(code, name, fate, retry, error)
            for (fate, retry, error), codes in _CODES.items()
            for name, code in codes.items()
        ),
    )
}
# The module was finalised and could not be loaded again yet.
CONNECTION_LOST: Final = Rule(0, "connection lost", Fate.REBUILD, retry=True)
# Found by python-pkcs11 itself, without a code: a label that was there before is gone when the login is.
NOT_FOUND: Final = Rule(0, "key not found", Fate.LOG_IN, retry=True)
# So CloudHSM throttles C_GetAttributeValue, where it throttles all else as above. python-pkcs11 calls that while it
# searches, too. A device that is gone says so to C_OpenSession and C_SignInit, on which all else depends.
_THROTTLED_READ: Final = Rule(0x30, "CKR_DEVICE_ERROR", Fate.KEEP, retry=True)
_READS: Final = frozenset({"C_GetAttributeValue", "C_FindObjects"})
# Bare errors, and names that are spelled otherwise in python-pkcs11.
_BY_TEXT: Final = {
    "Initialisation error (not initialized)": 0x190,
    "Initialisation error (already initialized)": 0x191,
    "Buffer was too small": 0x150,
    "Parallel not supported": 0xB4,
    "User type invalid": 0x103,
}
_BY_CLASS: Final = {
    **{rule.name.removeprefix("CKR_").replace("_", "").lower(): rule for rule in RULES.values()},
    "functioncancelled": RULES[0x50],
    "tokennotrecognised": RULES[0xE1],
    "anotheruseralreadyloggedin": RULES[0x104],
    # Without a code, too. The token was there when we last looked; what is found twice is a matter of the settings.
    "nosuchkey": NOT_FOUND,
    "nosuchtoken": RULES[0xE0],
    "multipleobjectsreturned": Rule(0, "several objects found", *_CONFIGURATION),
    "multipletokensreturned": Rule(0, "several tokens found", *_CONFIGURATION),
}
_UNMAPPED: Final = re.compile(r"Unmapped error code (0x[0-9a-f]+)")


def rule_of(code: int) -> Rule:
    """Give the row for a return code."""
    return RULES.get(code) or Rule.unknown(code)


def rule_for(error: pkcs11.PKCS11Error) -> Rule:
    """Give the row for what python-pkcs11 raised."""
    by_class = _BY_CLASS.get(type(error).__name__.lower())
    if by_class is not None:
        return by_class
    text = str(error)
    if unmapped := _UNMAPPED.match(text):
        return rule_of(int(unmapped[1], 16))
    code = next((code for start, code in _BY_TEXT.items() if text.startswith(start)), -1)
    # Any other bare `PKCS11Error`, of which python-pkcs11 has a few for what it does not understand.
    return RULES.get(code) or Rule(0, type(error).__name__, *_UNEXPECTED)


class HsmFault(Exception):  # noqa: N818 - it never leaves this package: `error` does
    """A call that failed, with the row that says what to do about it."""

    def __init__(self, rule: Rule, doing: str) -> None:
        super().__init__(f"{doing} failed: {rule.name}")
        self.rule = rule

    @property
    def throttled(self) -> bool:
        """Whether the HSM only said not now."""
        return self.rule.fate is Fate.KEEP and self.rule.retry

    @property
    def error(self) -> SignerError:
        """What the rest of the service learns."""
        return self.rule.error(str(self))


def fault(error: pkcs11.PKCS11Error, doing: str) -> HsmFault:
    """Look `error`, raised while `doing` (a PKCS#11 function's name), up in the table."""
    if doing in _READS and isinstance(error, pkcs11.DeviceError):
        return HsmFault(_THROTTLED_READ, doing)
    return HsmFault(rule_for(error), doing)
