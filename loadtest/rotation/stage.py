"""Two service processes over one token, one queue and one table, whose key is rotated at one moment."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from signer.demo.stack import KEY_LABEL, Emulator, Stack, provision

ELDER: Final = KEY_LABEL
YOUNGER: Final = "demo-settlement-key-2029"


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs."""

    stacks: tuple[Stack, Stack]
    """The queues of both are those of the first."""
    instant: datetime
    pin: bytes
    """Without the user's name, which is no secret."""


@contextmanager
def fleet(directory: Path, instant: datetime) -> Iterator[Fleet]:
    """Run both processes for the block; they are ready to sign with the elder version."""
    token = provision(directory / "token", keys=(ELDER, YOUNGER))
    with ExitStack() as stack:
        emulator = stack.enter_context(closing(Emulator(directory)))
        table = emulator.create_table(f"ledger-{uuid4().hex}")
        members: list[Stack] = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            member = Stack(directory / name, emulator, token)
            members.append(member)
            _configure(member, members[0], emulator.url, table, instant)
        programs = [member.launch() for member in members]
        for program in programs:
            stack.callback(program.terminate)
        for member, program in zip(members, programs, strict=True):
            program.wait_for(f"{member.http_url}/readyz")
        pin = token.pin_file.read_bytes().strip().rpartition(b":")[2]
        yield Fleet((members[0], members[1]), instant, pin)


def _configure(member: Stack, first: Stack, url: str, table: str, instant: datetime) -> None:
    versions = f'versions = [{{label = "{ELDER}"}}, {{label = "{YOUNGER}", active_from = {instant.isoformat()}}}]'
    own, shared = (stack.queues["inbound"].rsplit("/", 1)[-1] for stack in (member, first))
    text = member.config.read_text(encoding="utf-8")
    for old, new in (
        (f'label = "{ELDER}"', versions),
        (f'path = "{member.directory}/ledger.sqlite3"',
         f'backend = "dynamodb"\ntable = "{table}"\nendpoint_url = "{url}"'),
        (f"queue:{own}", f"queue:{shared}"),
        *((member.queues[role], first.queues[role]) for role in member.queues),
    ):  # fmt: skip
        text = text.replace(old, new)
    member.config.write_text(text, encoding="utf-8")
    member.environment["SIGNER_HSM__SESSIONS"] = str(os.cpu_count() or 2)
