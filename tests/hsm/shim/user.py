"""A process that uses the token through the shim: it does what each line says, and answers with what came of it."""

import ctypes
import os
import sys
from pathlib import Path

import pkcs11

from tests.hsm.shim.raw import Client, RefusedError, call, private_key, sign


def main(token_label: str, pin_file: str) -> None:
    """Log in, once, and open one session."""
    try:
        client = open_client(token_label, Path(pin_file).read_text(encoding="utf-8").strip())
    except pkcs11.PKCS11Error as error:
        say(type(error).__name__)
        return
    key = private_key(client.open_session())
    say("ready")
    for line in sys.stdin:
        try:
            if line == "fork\n":
                fork()
            else:
                sign(key)
        except pkcs11.PKCS11Error as error:
            say(type(error).__name__)
        else:
            say("done")


def open_client(token_label: str, pin: str) -> Client:
    """Processes that start at once on one token may get in each other's way."""
    for _ in range(5):
        try:
            return Client(token_label, pin)
        except RefusedError:
            continue
    return Client(token_label, pin)


def say(what: str) -> None:
    """Answer with one line."""
    print(what, flush=True)  # noqa: T201 - it is what the program is for


def fork() -> None:
    """Let a child make one call, say when it has, and live as long as this process does."""
    told, tell = os.pipe()
    over, held_open = os.pipe()
    if os.fork() == 0:
        os.close(held_open)
        call("C_GetInfo", ctypes.create_string_buffer(1024))
        os.write(tell, b".")
        os.read(over, 1)
        os._exit(0)
    os.read(told, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
