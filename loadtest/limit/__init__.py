"""What the module itself can do: a C program that does nothing but sign, and its answer as a value."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from signer.demo.stack import Token
from signer.errors import UnavailableError

PROGRAM: Final = Path(__file__).resolve().parents[2] / ".local/limit/limit"


@dataclass(frozen=True, slots=True)
class Limit:
    """What so many threads reached that did nothing else."""

    threads: int
    signatures: int
    seconds: float
    rate: float
    """Signatures a second."""
    cpu_us: float
    """CPU time of the whole process for each signature."""
    mean_ms: float
    """C_SignInit and C_Sign together, as are the percentiles."""
    p50_ms: float
    p99_ms: float
    p999_ms: float


def measure_limit(
    module: Path, token: Token, label: str, environment: Mapping[str, str], *, threads: int, seconds: float
) -> Limit:
    """Sign for so long; raises `UnavailableError` if the program is not built, or a call into the module fails."""
    command = [str(PROGRAM), str(module), token.label, label, str(token.pin_file), str(threads), str(seconds)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, env={**os.environ, **token.environment, **environment}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        msg = "the program that measures the limit is not built: make limit"
        raise UnavailableError(msg) from None
    if done.returncode:
        raise UnavailableError(done.stderr.strip())
    return Limit(**json.loads(done.stdout))
