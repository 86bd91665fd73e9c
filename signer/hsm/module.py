"""The PKCS#11 module of this process: loaded with OS locking, its token found by label, one session logged in."""

import os
import random
import time
from collections import deque
from pathlib import Path
from typing import Final

import pkcs11

from signer.errors import HsmConfigurationError, HsmUnavailableError
from signer.hsm import cryptoki
from signer.hsm.errors import Fate, HsmFault, fault, rule_of

_INITIALIZE_PAUSE_S: Final = 0.1
_MOST_SESSIONS: Final = 1024
"""Of one process: CloudHSM grants no more."""


class Module:
    """One loaded and initialised module; rebuilding means closing it and loading the next.

    The login belongs to the process (PKCS#11 2.40, section 5.6): when the last logged-in session closes, or any logs
    out, every other session loses its keys. So one session carries the login, kept apart from those that sign.
    """

    def __init__(self, path: Path, token_label: str, attempts: int = 1) -> None:
        """Load and initialise `path` and find the token; raises `HsmConfigurationError` or `HsmUnavailableError`."""
        self.path = path
        self._pid = os.getpid()
        self._closed = False
        self._login_session: pkcs11.Session | None = None
        self._unclosed: deque[pkcs11.Session] = deque(maxlen=_MOST_SESSIONS)
        library = _load(path, attempts)
        self.signing = cryptoki.Signing(path)
        try:
            self.token = _find_token(library, token_label)
        except BaseException:
            cryptoki.finalize(path)
            raise

    @property
    def token_serial(self) -> str:
        """The token's serial number, as the module tells it."""
        return self.token.serial.decode("ascii", "replace")

    def log_in(self, pin: str) -> bool:
        """Log the process in as Crypto User, on a session of its own; False if it still was. Raises `HsmFault`.

        Whoever is told `Fate.FATAL` must not try again.
        """
        session = self.open_session()
        code = cryptoki.log_in(self.path, handle_of(session), pin)
        if code == cryptoki.CKR_OK:
            # The former one goes only now: closing the last session of a process logs it out.
            former, self._login_session = self._login_session, session
            self.close_session(former)
            return True
        self.close_session(session)
        if code == cryptoki.CKR_USER_ALREADY_LOGGED_IN and self._login_session is not None:
            return False
        raise HsmFault(rule_of(code), "C_Login")

    def open_session(self) -> pkcs11.Session:
        """Open a session; it is logged in if the process is. Raises `HsmFault`."""
        self.check_process()
        try:
            # rw: CloudHSM refuses read-only sessions with CKR_FUNCTION_FAILED.
            return self.token.open(rw=True)
        except pkcs11.PKCS11Error as error:
            raise fault(error, "C_OpenSession") from None

    def check_process(self) -> None:
        """Raise `HsmUnavailableError` in a child that was forked after loading: the sessions are its parent's."""
        if os.getpid() != self._pid:
            msg = "this process was forked after the HSM was opened and must not use its sessions"
            raise HsmUnavailableError(msg)

    def close_session(self, session: pkcs11.Session | None) -> None:
        """Close a session, alive or dead; not after `close`, when its handle may be another session's.

        One that the HSM did not close, and may still have, is tried again with the next: it would count there for ever.
        """
        if session is None or self._closed or os.getpid() != self._pid:
            return
        self._unclosed.append(session)
        while self._close_next():
            pass

    def _close_next(self) -> bool:
        """Tell whether it makes sense to go on with the one after it."""
        try:
            session = self._unclosed.popleft()
        except IndexError:
            return False
        try:
            session.close()
        except pkcs11.PKCS11Error as error:
            refused = fault(error, "C_CloseSession")
            if refused.throttled or refused.rule.fate is Fate.REBUILD:
                self._unclosed.append(session)
                return False
        return True

    def close(self) -> None:
        """Finalise, which closes every session and logs out. Does nothing in a forked child."""
        if os.getpid() == self._pid and not self._closed:
            self._closed = True
            cryptoki.finalize(self.path)


def handle_of(session: pkcs11.Session) -> int:
    """Give a session's handle, which the library has and its type stub leaves out."""
    return int(session.handle)  # type: ignore[attr-defined]


def crypto_user_of(pin: str, fallback: str | None) -> str:
    """Name the Crypto User for the audit log: what the settings say, else the user in CloudHSM's `user:password`."""
    user, colon, _password = pin.partition(":")
    if fallback is not None:
        return fallback
    if colon and user:
        return user
    msg = "the PIN does not have the shape user:password, and hsm.crypto_user does not name the user either"
    raise HsmConfigurationError(msg)


def _load(path: Path, attempts: int) -> cryptoki.LockingLibrary:
    if not path.is_file():
        msg = f"there is no PKCS#11 module at {path}"
        raise HsmConfigurationError(msg)
    for attempt in range(1, attempts + 1):
        try:
            return cryptoki.LockingLibrary(str(path))
        except HsmUnavailableError:
            # Several processes that start at once on one SoftHSM token get in each other's way.
            if attempt == attempts:
                raise
            time.sleep(random.uniform(0.5, 1.5) * _INITIALIZE_PAUSE_S * attempt)  # noqa: S311 - jitter is no secret
        except pkcs11.PKCS11Error as error:
            raise fault(error, f"loading {path}").error from None
    raise AssertionError  # pragma: no cover - the loop returns or raises


def _find_token(library: cryptoki.LockingLibrary, label: str) -> pkcs11.Token:
    try:
        token: pkcs11.Token = library.get_token(token_label=label)
    except pkcs11.NoSuchToken:
        msg = f"the PKCS#11 module has no token with the label {label}"
        raise HsmConfigurationError(msg) from None
    except pkcs11.MultipleTokensReturned:
        msg = f"the PKCS#11 module has several tokens with the label {label}; labels must be unique"
        raise HsmConfigurationError(msg) from None
    except pkcs11.PKCS11Error as error:
        raise fault(error, "C_GetSlotList").error from None
    return token
