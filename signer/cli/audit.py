"""`signer audit`: the audit log."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from signer.cli.printing import EXIT_NO, Output, OutputOption, errors_to_exit, print_rows, printable
from signer.errors import InvalidInputError

app: Final = typer.Typer(help="The audit log.", no_args_is_help=True)
_ANCHOR: Final = re.compile(r"([1-9][0-9]{0,15}):([0-9a-fA-F]{64})")


@app.command("verify")
def audit_verify(
    directory: Annotated[Path, typer.Argument(help="The audit directory.")],
    anchor: Annotated[list[str] | None, typer.Option(help="SEQ:HASH noted earlier; it must be in the chain.")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Verify the audit chain, and name the first line that is altered, missing, reordered or torn."""
    from signer.audit.verification import verify_directory

    with errors_to_exit():
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
        print_rows([row], tuple(row), output)
        for note in result.notes:
            typer.echo(f"note: {printable(note)}", err=True)
        if result.problem is not None:
            where = f"{result.problem.file}, line {result.problem.line}"
            told = f"{result.problem.kind}: {where}, record {result.problem.seq}: {result.problem.message}"
            typer.echo(printable(told))
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
