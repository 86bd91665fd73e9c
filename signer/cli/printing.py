"""What every command shares: its options, how results are printed, and what errors become."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from signer.errors import ConfigurationError, InvalidInputError, SignerError

# sysexits.h; 1 stays for "it ran, and the answer is no".
EXIT_NO: Final = 1
EXIT_BAD_INPUT: Final = 65
EXIT_UNAVAILABLE: Final = 75
EXIT_CONFIGURATION: Final = 78
_PIPE_WIDTH: Final = 250


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; else $SIGNER_CONFIG, else ./signer.toml.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How results are printed.")]


@contextmanager
def errors_to_exit() -> Iterator[None]:
    """Tell our errors in one line on stderr, with an exit status that says what kind they are."""
    try:
        yield
    except SignerError as error:
        line = f"[bold red]{error.code}[/]: {escape(printable(error.message))}"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True)
        if isinstance(error, InvalidInputError):
            raise typer.Exit(EXIT_BAD_INPUT) from None
        raise typer.Exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_UNAVAILABLE) from None


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], output: Output) -> None:
    """Print rows as a table of `columns`, or all of them as JSON."""
    if output is Output.JSON:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if row[column] is None else escape(printable(str(row[column]))) for column in columns))
    # Whoever reads from a pipe wants whole values, not a terminal's width.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def printable(text: str) -> str:
    """Replace what could command a terminal or deceive its reader: control characters, bidi marks, surrogates."""
    return "".join(char if char.isprintable() else "?" for char in text)
