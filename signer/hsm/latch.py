"""A file that keeps the breaker open, over restarts too, until a person has looked."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from signer.errors import ConfigurationError
from signer.people import check_words
from signer.private_files import make_private_directory, sync_directory, write_all


@dataclass(frozen=True, slots=True)
class Latched:
    """Why nothing is signed, and who has looked into it."""

    reason: str
    since: str
    cleared_by: str | None = None
    cleared_because: str | None = None


class Latch:
    """The latch of one service, in the file `path`: it is set while the file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Latched | None:
        """Give what is latched; None if nothing is. Raises `ConfigurationError` for a file that cannot be read."""
        try:
            return Latched(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError):
            # Nobody can say what it held back: a person has to look in any case.
            msg = f"the latch {self.path} cannot be read; remove it once you know why the breaker was latched"
            raise ConfigurationError(msg) from None

    def set(self, latched: Latched) -> None:
        """Write it durably, in one step; raises `ConfigurationError`."""
        with self._faults_named():
            make_private_directory(self.path.parent)
            new = self.path.with_name(self.path.name + ".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                write_all(descriptor, json.dumps(asdict(latched)).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            new.replace(self.path)
            sync_directory(self.path.parent)

    def remove(self) -> None:
        """Let go; raises `ConfigurationError`."""
        with self._faults_named():
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)

    def clear(self, by: str, because: str) -> Latched | None:
        """Say who looked and what was found: the service lets go as soon as that is in its audit log.

        None if nothing is latched. Raises `InvalidInputError`, `ConfigurationError`.
        """
        check_words(by, because)
        latched = self.read()
        if latched is None:
            return None
        cleared = replace(latched, cleared_by=by, cleared_because=because)
        self.set(cleared)
        return cleared

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"the latch {self.path} cannot be written: {error.strerror}"
            raise ConfigurationError(msg) from None
