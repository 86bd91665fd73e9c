"""The one table from PKCS#11 return codes, as python-pkcs11 raises them, to our errors."""

import pkcs11

from signer.errors import HsmConfigurationError, HsmUnavailableError, LoginRefusedError, SignerError

_LOGIN_REFUSALS = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
    pkcs11.PinLocked,
    pkcs11.UserPinNotInitialized,
    pkcs11.UserTooManyTypes,
)
_CONFIGURATION = (pkcs11.NoSuchToken, pkcs11.MultipleTokensReturned, pkcs11.MechanismInvalid)


def translate(error: pkcs11.PKCS11Error, doing: str) -> SignerError:
    """Give our error for `error`, raised while `doing` (a PKCS#11 function's name).

    Only the class of `error` is shown: its text may come from the module. Whatever the table does not know is
    `HsmUnavailableError`; the session it happened on is discarded in every case.
    """
    message = f"{doing} failed: {type(error).__name__}"
    if isinstance(error, _LOGIN_REFUSALS):
        return LoginRefusedError(message)
    if isinstance(error, _CONFIGURATION):
        return HsmConfigurationError(message)
    return HsmUnavailableError(message)
