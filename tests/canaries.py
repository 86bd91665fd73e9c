"""Looks for secrets in all that the processes of a service let out, and whether a core file could hold one."""

import base64
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx

_GIVEN = {".pem", ".key"}
"""Keys and certificates lie where the process finds them; it did not write them."""


def spellings(secret: str) -> set[bytes]:
    """How a secret might look where it got out; base64 is looked for in each of its three alignments."""
    raw = secret.encode()
    aligned = (base64.b64encode(b"x" * shift + raw)[4 if shift else 0 : -4] for shift in range(3))
    return {raw, quote(secret, safe="").encode(), raw.hex().encode(), *aligned}


def found_in(said: Mapping[str, bytes], secrets: Collection[str]) -> set[tuple[str, str]]:
    """Which secret came out where."""
    return {
        (secret, where)
        for secret in secrets
        for spelling in spellings(secret)
        for where, content in said.items()
        if spelling in content
    }


def pin_in(file: Path) -> str:
    """The PIN alone: the user's name before it is no secret, and the rest is one without it, too."""
    return file.read_text(encoding="utf-8").strip().rpartition(":")[2]


def written(directory: Path) -> dict[str, bytes]:
    """Every file that the process has written, and those that it was given but for its keys and certificates."""
    kept = [path for path in directory.rglob("*") if path.is_file() and path.suffix not in _GIVEN]
    return {str(path.relative_to(directory)): _read(path) for path in kept}


def everything_said(directory: Path, url: str, heard: Collection[bytes] = ()) -> dict[str, bytes]:
    """All that a running service has let out, by where; it works in `directory`, and `heard` are its answers.

    Arguments are those of every process that we have started, for anybody on the machine can read them.
    """
    return {
        **written(directory),
        "metrics": httpx.get(f"{url}/metrics", timeout=20).content,
        "readiness": httpx.get(f"{url}/readyz", timeout=20).content,
        "answers": b"\n".join(heard),
        "arguments": b"\n".join(map(_arguments, descendants(os.getpid()))),
        "environment": b"\n".join(_read(Path(f"/proc/{pid}/environ")) for pid in processes_of(directory)),
    }


def leaks(directory: Path, url: str, heard: Collection[bytes], secrets: Collection[str]) -> Iterator[str]:
    """Name each place where a running service has let out a secret, or might yet."""
    for where in sorted({where for _, where in found_in(everything_said(directory, url, heard), secrets)}):
        yield f"{directory.name}/{where}: a secret stands in it"
    processes = processes_of(directory)
    if not processes:
        yield f"{directory.name}: no process of it was found"
    yield from (f"{directory.name}: process {pid} may write a core file" for pid in processes if may_dump_core(pid))


def descendants(pid: int) -> list[int]:
    """Every process that one has started, and those that these have."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for each in lists for child in _read(each).split()]
    return [*children, *(one for child in children for one in descendants(child))]


def processes_of(directory: Path) -> list[int]:
    """Those of our processes that work in this directory: their settings lie there."""
    return [pid for pid in descendants(os.getpid()) if f"{directory}/".encode() in _arguments(pid)]


def may_dump_core(pid: int) -> bool:
    """Whether the limits of a process let it write a core file, or raise that limit."""
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    return line.split()[4:6] != ["0", "0"]


def _arguments(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _read(file: Path) -> bytes:
    """Read what may be gone meanwhile: a file that a running service exchanged, or a process that ended."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
