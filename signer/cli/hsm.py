"""`signer hsm`: the HSM connection."""

from typing import Annotated, Final

import typer

from signer import settings
from signer.cli.printing import EXIT_NO, ConfigOption, errors_to_exit, printable

app: Final = typer.Typer(help="The HSM connection.", no_args_is_help=True)


@app.command("clear")
def hsm_clear(
    by: Annotated[str, typer.Option("--by", help="Who looked into it, such as an e-mail address.")],
    reason: Annotated[str, typer.Option("--reason", help="What was found, for the audit log.")],
    config: ConfigOption = None,
) -> None:
    """Let a service sign again that the HSM gave two wrong signatures in a row; recorded in its audit log."""
    from signer.hsm.latch import Latch

    with errors_to_exit():
        latch = Latch(settings.load(config).latch_file)
        cleared = latch.clear(by, reason)
    if cleared is None:
        typer.echo("nothing is latched", err=True)
        raise typer.Exit(EXIT_NO)
    told = f"cleared: {cleared.reason}, since {cleared.since}"
    typer.echo(printable(f"{told}; a running service signs as soon as a probe of its own verified"))
