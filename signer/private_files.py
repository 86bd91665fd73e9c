"""What the stores on disk need: private directories, durable names, and a lock that keeps a second process out."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from signer.errors import AlreadyRunningError


def make_private_directory(path: Path) -> None:
    """Create `path` (0700) durably where it is absent; raises `OSError`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path, fsync: Callable[[int], None] = os.fsync) -> None:
    """Make the entries of `path` durable: a file's own fsync does not cover its name. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_exclusively(path: Path, what: str) -> int:
    """Give a descriptor that holds the lock file `path` until it is closed or the process dies.

    Raises `AlreadyRunningError`, which names `what` is held, and `OSError`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        msg = f"another process holds {what}: stop it, or give this one a path of its own"
        raise AlreadyRunningError(msg) from None
    return descriptor


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: on a disk that is nearly full, one call may write a part of it. Raises `OSError`."""
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]
