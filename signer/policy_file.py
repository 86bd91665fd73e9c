"""The policy file: TOML, read strictly, into what the core decides by."""

import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from signer.errors import ConfigurationError
from signer.policy import MAX_BATCH, CallerPolicy, Grant, Policy
from signer.settings import ALIAS_PATTERN

SCHEMA: Final = "signer-policy/1"
MAX_FILE_BYTES: Final = 1_048_576

CALLER_PATTERN: Final = r"^[!-~]([ -~]{0,510}[!-~])?$"
"""Printable ASCII, no space at either end: what authentication makes of certificates, tokens and queues."""

_Algorithm = Literal["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PSS_SHA_256"]
_Content = Literal["message", "payload", "digest"]
_Operation = Literal["sign", "verify"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class _Key(_Table):
    algorithms: list[_Algorithm] = Field(min_length=1)
    content: list[_Content] = Field(min_length=1)
    require_transaction_id: bool = True
    operations: list[_Operation] = Field(default=["sign", "verify"], min_length=1)

    def grant(self) -> Grant:
        return Grant(
            algorithms=frozenset(self.algorithms),
            contents=frozenset(self.content),
            requires_transaction_id=self.require_transaction_id,
            operations=frozenset(self.operations),
        )


class _Caller(_Table):
    name: str = Field(pattern=CALLER_PATTERN)
    roles: list[Literal["auditor"]] = []
    max_batch: int = Field(default=MAX_BATCH, ge=1, le=MAX_BATCH)
    transactions_per_second: float | None = Field(default=None, ge=0.01, le=1_000_000, allow_inf_nan=False)
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    keys: dict[Annotated[str, Field(pattern=ALIAS_PATTERN)], _Key] = {}

    def policy(self) -> CallerPolicy:
        per_s = self.transactions_per_second
        return CallerPolicy(
            keys={alias: key.grant() for alias, key in self.keys.items()},
            roles=frozenset(self.roles),
            max_batch=self.max_batch,
            transactions_per_s=per_s,
            # What comes within one second, if nothing else is said.
            burst=self.burst or max(1, math.ceil(per_s or 1)),
        )


class _Document(_Table):
    schema_: Literal["signer-policy/1"] = Field(alias="schema")
    callers: list[_Caller] = []

    @field_validator("callers")
    @classmethod
    def _once_each(cls, callers: list[_Caller]) -> list[_Caller]:
        if len({caller.name for caller in callers}) < len(callers):
            msg = "one caller stands here twice"
            raise ValueError(msg)
        return callers


def read_bytes(path: Path, what: str) -> bytes:
    """Give a file's contents, opened anew, which is when a shared mount looks at the server's; `ConfigurationError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        msg = f"the {what} {path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    if len(content) > MAX_FILE_BYTES:
        msg = f"the {what} {path} is larger than {MAX_FILE_BYTES} bytes"
        raise ConfigurationError(msg)
    return content


def parse_policy(content: bytes) -> Policy:
    """Read a policy file's contents; raises `ConfigurationError`, which names what is wrong and never its value."""
    try:
        values: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):  # a number of too many digits is no error of TOML's
        msg = "the policy file is not TOML"
        raise ConfigurationError(msg) from None
    try:
        document = _Document.model_validate(values)
    except ValidationError as error:
        msg = f"the policy file is not valid: {problems_of(error)}"
        raise ConfigurationError(msg) from None
    return Policy({caller.name: caller.policy() for caller in document.callers})


def problems_of(error: ValidationError) -> str:
    """Name each place and what is wrong there; at most ten."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{_place(item['loc'])}: {item['msg']}" for item in found[:10]]
    return "; ".join(told + ([f"and {len(found) - 10} more"] if len(found) > 10 else []))  # noqa: PLR2004 - as said above


def _place(location: tuple[int | str, ...]) -> str:
    # A name that is not ours was typed by somebody, perhaps into the wrong file.
    return ".".join(str(part) if isinstance(part, int) or part in _NAMES else "?" for part in location)


_NAMES: Final = frozenset({"schema", "by", "reason", "since"}).union(
    *(model.model_fields for model in (_Key, _Caller, _Document))
)
