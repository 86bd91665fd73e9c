"""The command line: parse, call, print. Results go to stdout, everything else to stderr."""

import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from signer import __version__, logs, settings
from signer.cli import audit, drill, hsm, keys, ledger, policy, queue
from signer.cli.printing import EXIT_NO, ConfigOption, Output, OutputOption, errors_to_exit, print_rows
from signer.errors import InvalidInputError

app: Final = typer.Typer(
    help="Signs settlement transactions with keys that never leave an HSM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
app.add_typer(hsm.app, name="hsm")
app.add_typer(queue.app, name="queue")
app.add_typer(ledger.app, name="ledger")
app.add_typer(audit.app, name="audit")
app.command()(drill.drill)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:  # noqa: FBT002
    """Sign settlement transactions with keys that never leave an HSM."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    # stdout belongs to the results; `serve` sets up its own log.
    logs.configure("WARNING", sys.stderr)


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the service: the queue consumer, the HTTP API, or both, until SIGTERM."""
    from signer import wiring

    try:
        with errors_to_exit():
            wiring.serve(settings.load(config))
    except typer.Exit as end:
        # Python waits for the threads of HTTP requests at its end, and one of them may hang in the HSM.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.exit_code)


@app.command()
def check(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Look at module, token, login, keys, queues, disk and ledger; spends one login, signs nothing."""
    from signer.checks import run_checks

    with errors_to_exit():
        results = [
            {"status": "ok" if item.ok else "FAIL", "subject": item.subject, "found": item.found, "fix": item.fix}
            for item in run_checks(settings.load(config))
        ]
    print_rows(results, ("status", "subject", "found", "fix"), output)
    if any(row["status"] != "ok" for row in results):
        raise typer.Exit(EXIT_NO)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A signed batch, or one transaction out of it.")],
    public_key: Annotated[list[Path], typer.Option("--public-key", help="PEM file; may be given several times.")],
    transaction: Annotated[str | None, typer.Option("--transaction", help="Verify only this transaction_id.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify a signed batch offline: no HSM, no settings, no network."""
    from signer.verification import read_public_keys, verify_document

    with errors_to_exit():
        public_keys = read_public_keys([_read(path) for path in public_key])
        results = verify_document(_read(file), public_keys, transaction)
    rows = [{"result": "valid" if item.problem is None else "INVALID", **asdict(item)} for item in results]
    print_rows(rows, ("result", "transaction_id", "key_label", "signed_at", "audit_id", "problem"), output)
    invalid = sum(item.problem is not None for item in results)
    typer.echo(f"{len(results) - invalid} valid, {invalid} invalid", err=True)
    if invalid:
        raise typer.Exit(EXIT_NO)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise InvalidInputError(msg) from None


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo lives; emptied first if a demo made it.")
    ] = Path(".local/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up until Ctrl-C.")] = False,  # noqa: FBT002
) -> None:
    """Show the whole product at work on this machine: emulator, token, service, and proof of what came out."""
    from signer.demo.run import run_demo

    with errors_to_exit():
        held = run_demo(directory, Console(width=max(Console().width, 110)), keep=keep)
    if not held:
        raise typer.Exit(EXIT_NO)
