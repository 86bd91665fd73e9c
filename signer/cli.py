"""The command line: parse, call, print. Results go to stdout, everything else to stderr."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from signer import __version__, logs, settings
from signer.errors import ConfigurationError, InvalidInputError, SignerError

# sysexits.h; 1 stays for "it ran, and the answer is no".
EXIT_NO: Final = 1
EXIT_BAD_INPUT: Final = 65
EXIT_UNAVAILABLE: Final = 75
EXIT_CONFIGURATION: Final = 78
_PIPE_WIDTH: Final = 250
_ANCHOR: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-fA-F]{64})")

app = typer.Typer(
    help="Signs settlement transactions with keys that never leave an HSM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
keys_app = typer.Typer(help="The signing keys.", no_args_is_help=True)
hsm_app = typer.Typer(help="The HSM connection.", no_args_is_help=True)
audit_app = typer.Typer(help="The audit log.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(hsm_app, name="hsm")
app.add_typer(audit_app, name="audit")


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; else $SIGNER_CONFIG, else ./signer.toml.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How results are printed.")]


@contextmanager
def _errors_to_exit() -> Iterator[None]:
    """Tell our errors in one line on stderr, with an exit status that says what kind they are."""
    try:
        yield
    except SignerError as error:
        line = f"[bold red]{error.code}[/]: {escape(_printable(error.message))}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True)
        if isinstance(error, InvalidInputError):
            raise typer.Exit(EXIT_BAD_INPUT) from None
        raise typer.Exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_UNAVAILABLE) from None


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[column] is None else escape(_printable(str(row[column]))) for column in columns))
    # Whoever reads from a pipe wants whole values, not a terminal's width.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def _printable(text: str) -> str:
    """Replace what could command a terminal or deceive its reader: control characters, bidi marks, surrogates."""
    return "".join(char if char.isprintable() else "?" for char in text)


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

    with _errors_to_exit():
        wiring.serve(settings.load(config))


@app.command()
def check(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Look at module, token, login, keys, queues and disk; spends one login, signs nothing."""
    from signer.checks import run_checks

    with _errors_to_exit():
        results = [
            {"status": "ok" if item.ok else "FAIL", "subject": item.subject, "found": item.found, "fix": item.fix}
            for item in run_checks(settings.load(config))
        ]
    _print(results, ("status", "subject", "found", "fix"), output)
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

    with _errors_to_exit():
        keys = read_public_keys([_read(path) for path in public_key])
        results = verify_document(_read(file), keys, transaction)
    rows = [{"result": "valid" if item.problem is None else "INVALID", **asdict(item)} for item in results]
    _print(rows, ("result", "transaction_id", "key_label", "signed_at", "audit_id", "problem"), output)
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


@keys_app.command("list")
def keys_list(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the configured keys as the HSM holds them; every one has passed its checks."""
    from signer import wiring

    with _errors_to_exit():
        rows = [
            {
                "alias": key.alias,
                "label": key.label,
                "type": f"RSA-{key.public_key.key_size}",
                "fingerprint": key.fingerprint,
            }
            for key in wiring.checked_keys(settings.load(config))
        ]
    _print(rows, ("alias", "label", "type", "fingerprint"), output)


@keys_app.command("attest")
def keys_attest(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Print every property of every key as the HSM tells it, beside what it should be; the JSON is for the auditor."""
    from signer import wiring
    from signer.hsm.attestation import rows

    with _errors_to_exit():
        attestations = wiring.attest_keys(settings.load(config))
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(attestation) for attestation in attestations], indent=2))
    else:
        for item in attestations:
            told = f"{item.alias}: label {item.label}, token {item.token} (serial {item.token_serial}), "
            typer.echo(_printable(f"{told}Crypto User {item.crypto_user}, examined {item.examined_at}"))
        _print(list(rows(attestations)), ("alias", "subject", "found", "expected", "verdict"), output)
    if not all(attestation.compliant for attestation in attestations):
        raise typer.Exit(EXIT_NO)


@hsm_app.command("clear")
def hsm_clear(
    by: Annotated[str, typer.Option("--by", help="Who looked into it, such as an e-mail address.")],
    reason: Annotated[str, typer.Option("--reason", help="What was found, for the audit log.")],
    config: ConfigOption = None,
) -> None:
    """Let a service sign again that the HSM gave two wrong signatures in a row; recorded in its audit log."""
    from signer.hsm.latch import Latch

    with _errors_to_exit():
        latch = Latch(settings.load(config).latch_file)
        cleared = latch.clear(by, reason)
    if cleared is None:
        typer.echo("nothing is latched", err=True)
        raise typer.Exit(EXIT_NO)
    told = f"cleared: {cleared.reason}, since {cleared.since}"
    typer.echo(_printable(f"{told}; a running service signs as soon as a probe of its own verified"))


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the demo lives; emptied first if a demo made it.")
    ] = Path(".local/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack up until Ctrl-C.")] = False,  # noqa: FBT002
) -> None:
    """Show the whole product at work on this machine: emulator, token, service, and proof of what came out."""
    from signer.demo.run import run_demo

    with _errors_to_exit():
        held = run_demo(directory, Console(width=max(Console().width, 110)), keep=keep)
    if not held:
        raise typer.Exit(EXIT_NO)


@audit_app.command("verify")
def audit_verify(
    directory: Annotated[Path, typer.Argument(help="The audit directory.")],
    anchor: Annotated[list[str] | None, typer.Option(help="SEQ:HASH noted earlier; it must be in the chain.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify the audit chain, and name the first line that is altered, missing, reordered or torn."""
    from signer.audit.verification import verify_directory

    with _errors_to_exit():
        result = verify_directory(directory, _anchors(anchor or ()))
    problem = asdict(result.problem) if result.problem is not None else None
    row = {
        "chain": "BROKEN" if problem else "unbroken",
        "records": result.records,
        "segments": result.segments,
        "repairs": len(result.repairs),
        "head": f"{result.records}:{result.head_hash}",
    }
    if output is Output.JSON:
        typer.echo(json.dumps({**row, "problem": problem, "notes": result.notes}, indent=2))
    else:
        _print([row], tuple(row), output)
        for note in result.notes:
            typer.echo(f"note: {_printable(note)}", err=True)
        if result.problem is not None:
            where = f"{result.problem.file}, line {result.problem.line}"
            told = f"{result.problem.kind}: {where}, record {result.problem.seq}: {result.problem.message}"
            typer.echo(_printable(told))
    if result.problem is not None:
        raise typer.Exit(EXIT_NO)


def _anchors(texts: Sequence[str]) -> dict[int, str]:
    anchors: dict[int, str] = {}
    for text in texts:
        match = _ANCHOR.fullmatch(text)
        if match is None:
            msg = "an anchor has the shape SEQ:HASH: a number from 1 up, and 64 hexadecimal digits"
            raise InvalidInputError(msg)
        seq, digest = int(match[1]), match[2].lower()
        if anchors.setdefault(seq, digest) != digest:
            msg = f"two anchors give different hashes for record {seq}"
            raise InvalidInputError(msg)
    return anchors
