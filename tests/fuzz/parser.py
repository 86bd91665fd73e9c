"""What is fuzzed: a parser with specimens that it reads, and the errors that are all it may raise."""

import functools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cryptography.utils import CryptographyDeprecationWarning

from signer.errors import SignerError
from tests.fuzz.mutations import CANARY, near


@dataclass(frozen=True)
class Parser:
    """One way in for what others, or operators, wrote."""

    read: Callable[[bytes], object]
    specimens: tuple[bytes, ...]
    """Each is read without an error; what it is fuzzed with is near one of them."""
    raises: tuple[type[SignerError], ...] = ()
    """The errors that its docstring names; for anything else to come out of it is a defect."""
    may_quote: Callable[[bytes], bool] = lambda _data: False
    """Whether its error may quote this input: it names members, and the canary stands as one."""

    def check(self, data: bytes) -> str:
        """Read, and tell whether it was `read` or `refused`; raises whatever else comes of it."""
        try:
            with warnings.catch_warnings():
                # What cryptography takes today, and says that it will not for ever.
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                self.read(data)
        except self.raises as error:
            told = f"{error} {error.message}"
        else:
            return "read"
        assert CANARY not in told or self.may_quote(data), told
        return "refused"

    def inputs(self) -> Any:
        """Give a strategy for what it is fuzzed with."""
        return near(self.specimens)


@functools.cache
def directory() -> Path:
    """Give a directory for what is read from files; it goes with the process."""
    kept = TemporaryDirectory(prefix="fuzz")
    _KEPT.append(kept)
    return Path(kept.name)


_KEPT: Final[list[TemporaryDirectory[str]]] = []


def file_with(data: bytes, name: str) -> Path:
    """Put `data` into a file, in the place of what was in it."""
    file = directory() / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file


def text(data: bytes) -> str:
    """Give what a header holds (RFC 9110, section 5.5): octets, taken for Latin-1."""
    return data.decode("latin-1")


def dumped(document: Any) -> bytes:
    """Write a specimen down."""
    return json.dumps(document).encode()
