"""What a fault is to the drill: how it is made, how long it lasts, and who ends it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from signer.drill.stage import Stage
from softhsm.shim.client import Fault

Begin = Callable[[Stage], Sequence[Fault]]


class Kind(StrEnum):
    """What a fault takes away, and so what it takes to recover."""

    SESSION = "session"
    LOGIN = "login"
    REBUILD = "rebuild"
    THROTTLE = "throttle"
    HANG = "hang"
    CRASH = "crash"
    SIGNATURE = "signature"
    OPERATOR = "operator"


class Lasts(StrEnum):
    """How long a fault lasts."""

    A_MOMENT = "a moment"
    """It is over at once, or used up by the first calls: recovery counts from its beginning."""
    A_WHILE = "a while"
    UNTIL_NOTICED = "until noticed"
    """And no shorter than the while."""
    UNTIL_DEATH = "until death"
    """Of the process, which takes the fault along."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One fault."""

    name: str
    kind: Kind
    begin: Begin
    """Lets it happen, and gives what is to be ended afterwards."""
    lasts: Lasts = Lasts.A_MOMENT
    hold_s: float = 1.5
    """How long until it is ended, or what is left of it cleared away."""
    act: Callable[[Stage], None] | None = None
    """What a person has to do after the fault has ended; None if it heals by itself."""
    needs_other_key: bool = False
    kills: bool = False
    """Whether the process ends because of it."""
    silent: bool = False
    """Whether it fails nothing, and so need not be noticed."""

    @property
    def heals(self) -> bool:
        """Whether the process survives it and needs nobody."""
        return self.act is None and not self.kills
