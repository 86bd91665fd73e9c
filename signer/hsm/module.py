"""The PKCS#11 module of this process: loaded with OS locking, its token found by label, logged in once."""

import os
import random
import time
from pathlib import Path
from typing import Final

import pkcs11

from signer.errors import HsmConfigurationError, HsmUnavailableError
from signer.hsm import cryptoki
from signer.hsm.errors import translate

_INITIALIZE_ATTEMPTS: Final = 5
_INITIALIZE_PAUSE_S: Final = 0.1


class Module:
    """One loaded module and its one login session, which lives as long as the process uses the HSM.

    The login belongs to the process (PKCS#11 2.40, section 5.6): closing the session that carries it logs every
    other session out. So it is opened first, kept apart, closed last, and signing sessions open without a PIN.
    """

    def __init__(self, path: Path, token_label: str) -> None:
        """Load and initialise `path` and find the token; raises `HsmConfigurationError` or `HsmUnavailableError`."""
        self.path = path
        self._pid = os.getpid()
        self._login_session: pkcs11.Session | None = None
        self._library = _load(path)
        try:
            self._token = _find_token(self._library, token_label)
        except BaseException:
            cryptoki.finalize(path)
            raise

    @property
    def token_serial(self) -> str:
        """The token's serial number, as the module tells it."""
        return self._token.serial.decode("ascii", "replace")

    def log_in(self, pin: str) -> None:
        """Log the process in as Crypto User, once; raises `LoginRefusedError`, after which nobody may try again."""
        self.check_process()
        try:
            # rw: CloudHSM refuses read-only sessions with CKR_FUNCTION_FAILED.
            self._login_session = self._token.open(rw=True, user_pin=pin)
        except pkcs11.PKCS11Error as error:
            raise translate(error, "C_Login") from None

    def open_session(self) -> pkcs11.Session:
        """Open a session for signing; it is logged in because the process is. Raises `HsmUnavailableError`."""
        self.check_process()
        try:
            return self._token.open(rw=True)
        except pkcs11.PKCS11Error as error:
            raise translate(error, "C_OpenSession") from None

    def check_process(self) -> None:
        """Raise `HsmUnavailableError` in a child that was forked after loading: the sessions are its parent's."""
        if os.getpid() != self._pid:
            msg = "this process was forked after the HSM was opened and must not use its sessions"
            raise HsmUnavailableError(msg)

    def close(self) -> None:
        """Log out and finalise; every signing session must be closed by now. Does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        if self._login_session is not None:
            close_session(self._login_session)
        cryptoki.finalize(self.path)


def close_session(session: pkcs11.Session) -> None:
    """Close a session that may be dead already."""
    try:
        session.close()
    except pkcs11.PKCS11Error:
        # It is gone either way, and C_Finalize closes what is left.
        return


def _load(path: Path) -> cryptoki.LockingLibrary:
    if not path.is_file():
        msg = f"there is no PKCS#11 module at {path}"
        raise HsmConfigurationError(msg)
    for attempt in range(1, _INITIALIZE_ATTEMPTS + 1):
        try:
            return cryptoki.LockingLibrary(str(path))
        except HsmUnavailableError:
            # Several processes that start at once on one SoftHSM token get in each other's way.
            if attempt == _INITIALIZE_ATTEMPTS:
                raise
            time.sleep(random.uniform(0.5, 1.5) * _INITIALIZE_PAUSE_S * attempt)  # noqa: S311 - jitter is no secret
        except pkcs11.PKCS11Error as error:
            raise translate(error, f"loading {path}") from None
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
        raise translate(error, "C_GetSlotList") from None
    return token


def crypto_user_of(pin: str, fallback: str | None) -> str:
    """Name the Crypto User for the audit log: CloudHSM's PIN is `user:password`; else what the settings say."""
    user, colon, _password = pin.partition(":")
    if fallback is not None:
        return fallback
    if colon and user:
        return user
    msg = "the PIN does not have the shape user:password, and hsm.crypto_user does not name the user either"
    raise HsmConfigurationError(msg)
