"""What drill and soak have in common: the stage under load, the choice of faults, and the proof."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from signer.demo.fresh import make_fresh
from signer.drill.checker import Findings, check
from signer.drill.exercise import Exercise
from signer.drill.faults import EXERCISES
from signer.drill.load import Load, running_load
from signer.drill.stage import Stage, open_stage
from signer.errors import ConfigurationError, UnavailableError

_PUBLIC_KEY: Final = "/v1/keys/settlement/public-key"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is drilled, and where."""

    directory: Path
    """Emptied first, if a drill made it."""
    reports: Path
    config: Path | None = None
    """Settings of a service whose token is drilled; None: a fresh SoftHSM token."""
    key: str | None = None
    """Its alias in those settings; None: the first."""
    only: tuple[str, ...] = ()
    """Names of faults; empty: all."""


@dataclass(frozen=True, slots=True)
class Play:
    """A drill or soak in the making."""

    stage: Stage
    load: Load
    public_key_pem: bytes

    def findings(self) -> Findings:
        """Prove what came out; when the service has ended, and all is written."""
        return check(self.load.evidence, self.stage.stack.audit_directory, self.public_key_pem)


@contextmanager
def playing(plan: Plan) -> Iterator[Play]:
    """Run service and load for the block; SIGTERM does there what Ctrl-C does."""
    make_fresh(plan.directory, "drill")
    plan.reports.mkdir(parents=True, exist_ok=True)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with open_stage(plan.directory.absolute(), plan.config, plan.key) as stage:
            # The key as it is before anything happened to it.
            public_key = stage.get(_PUBLIC_KEY)
            if public_key is None:
                msg = "the service does not give its public key"
                raise UnavailableError(msg)
            with running_load(stage) as load:
                yield Play(stage, load, public_key.encode())
    finally:
        signal.signal(signal.SIGTERM, previous)


def chosen(plan: Plan) -> Sequence[Exercise]:
    """Give the faults that were asked for; raises `ConfigurationError` for one that is not in the catalogue."""
    known = {exercise.name: exercise for exercise in EXERCISES}
    unknown = [name for name in plan.only if name not in known]
    if unknown:
        msg = f"no such fault; there are: {', '.join(known)}"
        raise ConfigurationError(msg)
    return [known[name] for name in plan.only] or EXERCISES


def playable(exercises: Sequence[Exercise], stage: Stage, console: Console) -> Sequence[Exercise]:
    """Leave out what this token has no key for, and say so."""
    left_out = [exercise for exercise in exercises if exercise.needs_other_key and stage.other_label is None]
    for exercise in left_out:
        console.print(f"[yellow]left out: {exercise.name}: the settings name no second key[/]", highlight=False)
    return [exercise for exercise in exercises if exercise not in left_out]


def result_of(play: Play, findings: Findings) -> str:
    """Say in one line what was proven."""
    evidence = play.load.evidence
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in findings.counts().items())
    return f"{len(evidence.sent)} transactions sent, {len(evidence.released)} signatures came out: {counts}"


def tell(play: Play, findings: Findings, console: Console) -> None:
    """Print what was proven."""
    colour = "green" if findings.clean else "red"
    console.print(f"[bold {colour}]{result_of(play, findings)}[/]", highlight=False)
    if findings.audit_problem is not None:
        console.print(f"[bold red]the audit chain: {findings.audit_problem}[/]", highlight=False)
