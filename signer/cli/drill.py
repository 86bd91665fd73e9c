"""`signer drill`: does the service come through whatever the HSM does?"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from signer.cli.printing import EXIT_NO, errors_to_exit
from signer.errors import ConfigurationError

_WIDTH: Final = 160


def drill(  # noqa: PLR0913, PLR0917 - every argument is an option of the command
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Drill the token of these settings; else a fresh SoftHSM token."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Alias of the key to sign with; else the first.")] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where it runs; emptied first if a drill made it.")] = Path(
        ".local/drill"
    ),
    reports: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(".local/reports"),
    only: Annotated[list[str] | None, typer.Option(help="Name of a fault; may be given several times.")] = None,
    minutes: Annotated[float, typer.Option("--soak", help="Soak for so many minutes, faults at random.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Of the soak's choice of faults; printed, to repeat it.")] = None,
) -> None:
    """Let the HSM fail in every way while both entrances are under load, and prove that nothing is lost or doubled."""
    with errors_to_exit():
        if find_spec("softhsm") is None:
            msg = "the drill runs from a source checkout: it needs softhsm/"
            raise ConfigurationError(msg)
        from signer.drill.play import Plan
        from signer.drill.run import run_drill
        from signer.drill.soak import run_soak

        plan = Plan(directory, reports, config, key, tuple(only or ()))
        console = Console(width=max(Console().width, _WIDTH))
        held = run_soak(plan, console, minutes, seed) if minutes else run_drill(plan, console)
    if not held:
        raise typer.Exit(EXIT_NO)
