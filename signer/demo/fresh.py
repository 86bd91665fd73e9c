"""A directory that starts empty, without ever emptying one that holds somebody else's files."""

import shutil
from pathlib import Path

from signer.errors import ConfigurationError


def make_fresh(directory: Path, maker: str) -> None:
    """Make `directory`, or empty it if this `maker` made it; raises `ConfigurationError`."""
    marker = f".made-by-signer-{maker}"
    try:
        if not _may_be_emptied(directory, marker):
            msg = f"{directory} was not made by this {maker}: remove it yourself, or give another --dir"
            raise ConfigurationError(msg)
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / marker).touch()
    except OSError as error:
        msg = f"the directory {directory} cannot be made: {error.strerror}"
        raise ConfigurationError(msg) from None


def _may_be_emptied(directory: Path, marker: str) -> bool:
    if directory.is_symlink() or not directory.is_dir():
        return not (directory.is_symlink() or directory.exists())
    return (directory / marker).is_file() or not any(directory.iterdir())
