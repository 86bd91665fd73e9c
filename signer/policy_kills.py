"""The kill switch: a file beside the policy, changed in one step by a person, that every task looks at."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from signer.errors import ConfigurationError, InvalidInputError
from signer.people import MAX_REASON, PERSON_PATTERN, check_words
from signer.policy import Kill, Kills
from signer.policy_file import CALLER_PATTERN, problems_of, read_bytes
from signer.private_files import sync_directory, write_all
from signer.settings import ALIAS_PATTERN

_WHAT: Final = "kill file"


class _Kill(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    by: str = Field(pattern=PERSON_PATTERN)
    reason: str = Field(min_length=1, max_length=MAX_REASON)
    since: str = Field(pattern=r"^[0-9TZ:.-]{20,30}$")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    schema_: Literal["signer-kills/1"] = Field(alias="schema")
    keys: dict[Annotated[str, Field(pattern=ALIAS_PATTERN)], _Kill] = {}
    callers: dict[Annotated[str, Field(pattern=CALLER_PATTERN)], _Kill] = {}
    revived: dict[Annotated[str, Field(max_length=600)], _Kill] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """What the switch is turned for."""

    kind: Literal["key", "caller"]
    name: str


class KillFile:
    """The kill file at `path`; it stays there, empty, when all is revived, so that its absence stands out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Kills:
        """Give what is killed; nothing if the file was never made. Raises `ConfigurationError`."""
        return parse_kills(read_bytes(self.path, _WHAT)) if self.path.exists() else Kills()

    def kill(self, target: Target, kill: Kill) -> None:
        """Stop a key or a caller; raises `InvalidInputError`, `ConfigurationError`. The first word about it stands."""
        _check(target, kill)
        with self._editing() as kills:
            self._write(_with(kills, target, {target.name: kill, **_of(kills, target)}))

    def revive(self, target: Target, turn: Kill) -> Kill | None:
        """Let it go on, and give what held it, or None; raises `InvalidInputError`, `ConfigurationError`."""
        _check(target, turn)
        with self._editing() as kills:
            left = dict(_of(kills, target))
            kill = left.pop(target.name, None)
            if kill is not None:
                revived = {**kills.revived, f"{target.kind} {target.name}": turn}
                self._write(replace(_with(kills, target, left), revived=revived))
            return kill

    @contextmanager
    def _editing(self) -> Iterator[Kills]:
        """Hold others off who would edit it at the same time, on this machine or over the shared mount."""
        try:
            descriptor = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o660)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield self.read()
            finally:
                os.close(descriptor)
        except OSError as error:
            msg = f"the kill file {self.path} cannot be written: {error.strerror}"
            raise ConfigurationError(msg) from None

    def _write(self, kills: Kills) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
        try:
            write_all(descriptor, json.dumps({"schema": "signer-kills/1", **asdict(kills)}, indent=2).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.replace(self.path)
        sync_directory(self.path.parent)


def parse_kills(content: bytes) -> Kills:
    """Read a kill file's contents; raises `ConfigurationError`."""
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError):
        msg = "the kill file is not JSON"
        raise ConfigurationError(msg) from None
    try:
        document = _Document.model_validate(values)
    except ValidationError as error:
        msg = f"the kill file is not valid: {problems_of(error)}"
        raise ConfigurationError(msg) from None
    return Kills(_kills(document.keys), _kills(document.callers), _kills(document.revived))


def _kills(found: dict[str, _Kill]) -> dict[str, Kill]:
    return {name: Kill(kill.by, kill.reason, kill.since) for name, kill in found.items()}


def _with(kills: Kills, target: Target, items: dict[str, Kill]) -> Kills:
    return replace(kills, keys=items) if target.kind == "key" else replace(kills, callers=items)


def _of(kills: Kills, target: Target) -> Mapping[str, Kill]:
    return kills.keys if target.kind == "key" else kills.callers


def _check(target: Target, kill: Kill) -> None:
    pattern = ALIAS_PATTERN if target.kind == "key" else CALLER_PATTERN
    if not re.fullmatch(pattern, target.name):
        msg = "this is no key alias" if target.kind == "key" else "this is no caller's name"
        raise InvalidInputError(msg)
    check_words(kill.by, kill.reason)
