"""Opens signing sessions and finds in each the keys that it is to sign with: handles belong to a session."""

from collections.abc import Callable, Iterator

import pkcs11

from signer.errors import HsmUnavailableError, KeyRefusedError
from signer.hsm.compliance import find_private_key, read_public_key, refused
from signer.hsm.connection import Lent
from signer.hsm.errors import NOT_FOUND, HsmFault
from signer.hsm.key_versions import KeyVersions
from signer.hsm.session_pool import SigningSession
from signer.ports import SigningKey


class KeyFinder:
    """Knows what every session must find, and takes out of service what it finds changed."""

    def __init__(self, versions: KeyVersions, went_on: Callable[[], None]) -> None:
        """`went_on` is called after each key: there may be many."""
        self._versions = versions
        self._went_on = went_on

    def open_session(self, lent: Lent) -> SigningSession:
        """Open a session and look up what signs, and before its time what is to sign; raises `HsmFault`."""
        raw = lent.module.open_session()
        try:
            keys = dict(self._look_all_up(raw))
        except BaseException:
            lent.module.close_session(raw)
            raise
        return SigningSession(lent.module, raw, lent.generation, keys)

    def handle_in(self, session: SigningSession, key: SigningKey) -> int:
        """Give a key's handle in the session, looked up now if need be; raises `HsmFault`, `HsmUnavailableError`."""
        if key.label not in session.keys:
            session.keys[key.label] = self._look_up(session.raw, key)
        return session.keys[key.label]

    def lose(self, key: SigningKey) -> HsmUnavailableError:
        """Take a key out of service that is not there, though the login is; give what to tell those who want it."""
        return HsmUnavailableError(self._versions.lose_absent(self._versions.of(key)))

    def _look_all_up(self, raw: pkcs11.Session) -> Iterator[tuple[str, int]]:
        """Look up ahead of the time of each: then, all sessions would do it at once."""
        for alias in self._versions.aliases():
            current = self._versions.in_force(alias)
            for key in self._versions.to_look_up(alias):
                self._went_on()
                try:
                    yield key.label, self._look_up(raw, key)
                except HsmUnavailableError:
                    continue
                except HsmFault as fault:
                    # A key that is absent is told to those who ask for it: the others are signed with all the same.
                    if fault.rule is not NOT_FOUND and current is not None and current.key is key:
                        raise

    def _look_up(self, raw: pkcs11.Session, key: SigningKey) -> int:
        # The label may point to another key by now.
        version = self._versions.of(key)
        spec = version.spec
        try:
            found = find_private_key(raw, spec)
            if found is None or found.handle is None:
                raise HsmFault(NOT_FOUND, f"looking key {key.alias} up")
            if read_public_key(found, spec).public_numbers() != key.public_key.public_numbers():
                raise refused(spec, "it is no longer the key that was checked at start")
        except KeyRefusedError as error:
            self._versions.lose(version, error.message)
            raise HsmUnavailableError(error.message) from None
        return found.handle
