"""Makes the SoftHSM token and the signing keys that development, tests, CI and the demo use.

    python softhsm/provision.py --home DIR --token LABEL --key LABEL [--key LABEL ...]

Everything lies in DIR: `softhsm2.conf`, `tokens/`, and the random `pin` and `so-pin`. What is there already is left
alone. One JSON object on stdout says what there is; no PIN is ever printed.
"""

import argparse
import ctypes
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag
from pkcs11._pkcs11 import lib as Library  # noqa: N812 - it is a class; pkcs11.lib is a function and no type

DEFAULT_USER: Final = "signer-dev"
_TOKEN_LABEL_BYTES: Final = 32  # CK_TOKEN_INFO.label, PKCS#11 2.40 section 3.2
_SETTINGS: Final = """\
directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""
# Every right is given or refused by name: modules differ in what they assume, and CloudHSM makes a private key
# extractable unless it is told otherwise.
_PRIVATE_KEY: Final[Mapping[Attribute, Any]] = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.SIGN: True,
    Attribute.SIGN_RECOVER: False,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_PUBLIC_KEY: Final[Mapping[Attribute, Any]] = {
    Attribute.TOKEN: True,
    Attribute.PUBLIC_EXPONENT: (65537).to_bytes(3, "big"),
    Attribute.VERIFY: True,
    Attribute.VERIFY_RECOVER: False,
    Attribute.ENCRYPT: False,
    Attribute.WRAP: False,
}


class ProvisionError(Exception):
    """What was asked for cannot be made; the message says why and never holds a PIN."""


@dataclass(frozen=True, slots=True)
class ProvisionedKey:
    """One key pair of the token."""

    label: str
    created: bool
    """False if it was there before."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A token ready for use, and what a process needs to find it and to log in."""

    module: str
    conf: str
    """The value for `SOFTHSM2_CONF`."""
    token: str
    serial: str
    pin_file: str
    crypto_user: str
    keys: tuple[ProvisionedKey, ...]


def provision(
    home: Path, token: str, keys: Sequence[str], *, user: str = DEFAULT_USER, module: Path | None = None
) -> Provisioned:
    """Make what is missing of the token `token` and of one RSA-2048 key pair per label; raises `ProvisionError`."""
    if not 0 < len(token.encode()) <= _TOKEN_LABEL_BYTES or not all(keys):
        msg = f"a token label has 1 to {_TOKEN_LABEL_BYTES} bytes, and a key label is not empty"
        raise ProvisionError(msg)
    home = home.resolve()
    with _opened(home, module) as library:
        _ensure_pins(home, user)
        serial = _ensure_token(library, home, token)
        with _logged_in(library, home, token) as session:
            made = tuple(ProvisionedKey(label, _ensure_key(session, label)) for label in keys)
    return Provisioned(
        module=library.so,
        conf=str(home / "softhsm2.conf"),
        token=token,
        serial=serial,
        pin_file=str(home / "pin"),
        crypto_user=user,
        keys=made,
    )


@contextmanager
def open_session(home: Path, token: str, module: Path | None = None) -> Iterator[pkcs11.Session]:
    """Open a logged-in read-write session on a token that `provision` made; other runs wait until it is closed.

    The module is initialised for one thread, and finalised at the end: no place for it in a process of `signer.hsm`.
    """
    home = home.resolve()
    with _opened(home, module) as library, _logged_in(library, home, token) as session:
        yield session


def generate_rsa_key(
    session: pkcs11.Session,
    label: str,
    bits: int = 2048,
    private_overrides: Mapping[Attribute, Any] | None = None,
) -> tuple[pkcs11.PublicKey, pkcs11.PrivateKey]:
    """Generate a key pair, e = 65537, fit for signing and nothing else unless `private_overrides` says otherwise."""
    return session.generate_keypair(
        KeyType.RSA,
        bits,
        id=secrets.token_bytes(16),
        label=label,
        public_template=dict(_PUBLIC_KEY),
        private_template={**_PRIVATE_KEY, **(private_overrides or {})},
    )


def find_module(module: Path | None = None) -> Path:
    """Find the library: `module`, else `SOFTHSM2_MODULE`, else Debian's places, else what `install.sh` unpacked."""
    if named := module or os.environ.get("SOFTHSM2_MODULE"):
        candidates = [Path(named).absolute()]
    else:
        roots = (Path("/usr/lib"), Path(__file__).resolve().parent.parent / ".local/softhsm/root/usr/lib")
        patterns = ("softhsm/libsofthsm2.so", "*-linux-gnu/softhsm/libsofthsm2.so")
        candidates = [path for root in roots for pattern in patterns for path in sorted(root.glob(pattern))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    msg = f"{named} is not there" if named else "there is no SoftHSM; softhsm/install.sh installs it"
    raise ProvisionError(msg)


# --- the directory --------------------------------------------------------------------------------------------------


@contextmanager
def _opened(home: Path, module: Path | None) -> Iterator[Library]:
    """Make the directory fit for use, and load the module over it, alone: its file store is no place for two."""
    path = find_module(module)
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_mode & 0o077:
        # Not tightened here: it may be /tmp, or a whole working tree.
        msg = f"{home} is open to others: chmod 700 it, or name a directory that does not exist yet"
        raise ProvisionError(msg)
    mask = os.umask(0o077)  # SoftHSM's files too are nobody else's
    try:
        with (home / ".lock").open("a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (home / "tokens").mkdir(exist_ok=True)
            _write_private(home / "softhsm2.conf", _SETTINGS.format(tokens=home / "tokens"))
            os.environ["SOFTHSM2_CONF"] = str(home / "softhsm2.conf")
            library = pkcs11.lib(str(path))
            try:
                yield library
            finally:
                library.finalize()
    finally:
        os.umask(mask)


def _ensure_pins(home: Path, user: str) -> None:
    """Write the missing ones of the Crypto User's PIN, of CloudHSM's shape `user:password`, and the SO's."""
    for path, prefix in ((home / "pin", f"{user}:"), (home / "so-pin", "")):
        if not path.exists():
            _write_private(path, prefix + secrets.token_urlsafe(24))
        if not path.read_text(encoding="utf-8").startswith(prefix):
            msg = f"the PIN in {path} is not that of the user {user}"
            raise ProvisionError(msg)


def _write_private(path: Path, text: str) -> None:
    """Put the file there in one step, nobody else's from the first moment; the caller holds the lock."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600, exist_ok=False)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


# --- the token ------------------------------------------------------------------------------------------------------


def _the_token(library: Library, label: str) -> pkcs11.Token:
    try:
        return library.get_token(token_label=label)
    except pkcs11.MultipleTokensReturned:
        msg = f"several tokens have the label {label}, instead of one"
        raise ProvisionError(msg) from None


def _ensure_token(library: Library, home: Path, label: str) -> str:
    """Give the token's serial number; what a run left half done is finished."""
    so_pin = (home / "so-pin").read_text(encoding="utf-8")
    try:
        token = _the_token(library, label)
    except pkcs11.NoSuchToken:
        _initialize_token(library, label, so_pin)
        token = _the_token(library, label)
    if not token.flags & TokenFlag.USER_PIN_INITIALIZED:
        with token.open(rw=True, so_pin=so_pin) as session:
            session.init_pin((home / "pin").read_text(encoding="utf-8"))
    return token.serial.decode("ascii")


def _initialize_token(library: Library, label: str, so_pin: str) -> None:
    """Call C_InitToken, which python-pkcs11 does not offer, on the free slot that SoftHSM always has."""
    free = next(s for s in library.get_slots() if not s.get_token().flags & TokenFlag.TOKEN_INITIALIZED)
    init_token = ctypes.CDLL(library.so).C_InitToken
    init_token.argtypes = (ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    init_token.restype = ctypes.c_ulong
    code = init_token(free.slot_id, so_pin.encode(), len(so_pin), label.encode().ljust(_TOKEN_LABEL_BYTES))
    if code:
        msg = f"SoftHSM does not initialise the token (CKR 0x{code:08X})"
        raise ProvisionError(msg)


@contextmanager
def _logged_in(library: Library, home: Path, label: str) -> Iterator[pkcs11.Session]:
    try:
        # rw: CloudHSM refuses read-only sessions, so nothing here gets used to them.
        session = _the_token(library, label).open(rw=True, user_pin=(home / "pin").read_text(encoding="utf-8"))
    except pkcs11.PinIncorrect:
        msg = f"the token {label} does not take the PIN in {home / 'pin'}: remove {home} and start again"
        raise ProvisionError(msg) from None
    with session:
        yield session


def _ensure_key(session: pkcs11.Session, label: str) -> bool:
    """Tell whether the key pair had to be made."""
    private, public = (
        len(list(session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: label})))
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    )
    if private == public == 0:
        generate_rsa_key(session, label)
    elif not private == public == 1:
        msg = f"the label {label} stands for {private} private and {public} public keys, instead of one pair"
        raise ProvisionError(msg)
    return private == 0


# --- the command line -----------------------------------------------------------------------------------------------


def main() -> int:
    """Run the command line; 1 means that it could not be done."""
    parser = argparse.ArgumentParser(description="Make a SoftHSM token and its keys; leave alone what is there.")
    parser.add_argument("--home", type=Path, required=True, metavar="DIR", help="where token, PINs and settings live")
    parser.add_argument("--token", required=True, metavar="LABEL", help="label of the token")
    parser.add_argument("--key", action="append", default=[], metavar="LABEL", help="label of a key; may be repeated")
    parser.add_argument("--user", default=DEFAULT_USER, help="Crypto User, the first half of the PIN (%(default)s)")
    parser.add_argument("--module", type=Path, metavar="PATH", help="SoftHSM's library, if it is in no usual place")
    asked = parser.parse_args()
    try:
        provisioned = provision(asked.home, asked.token, asked.key, user=asked.user, module=asked.module)
    except (ProvisionError, OSError, pkcs11.PKCS11Error) as error:
        sys.stderr.write(f"provision: {str(error) or type(error).__name__}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(provisioned)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
