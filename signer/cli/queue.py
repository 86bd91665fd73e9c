"""`signer queue`: how full the queues are, and what lies in quarantine."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from signer import settings
from signer.cli.printing import EXIT_NO, ConfigOption, Output, OutputOption, errors_to_exit, print_rows, printable
from signer.errors import ConfigurationError
from signer.settings import SqsSettings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

    from signer.sqs.set_aside import Entry

app: Final = typer.Typer(help="The queues, and what lies in quarantine.", no_args_is_help=True)
_STATUS_COLUMNS: Final = ("role", "queue", "waiting", "in_flight", "delayed", "moves_after", "problem")
_ENTRY_COLUMNS: Final = ("n", "entry", "set_aside_at", "code", "batch_id", "receive_count", "message")
_NAME: Final = "N of the list, or better the entry's id or its beginning: it stays when others go."


@app.command("status")
def queue_status(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show how many messages lie in each queue, dead letters included, and after how many receives they get there."""
    from signer.sqs.depths import depths

    with errors_to_exit(), _client(config) as (client, sqs):
        rows = [asdict(depth) for depth in depths(client, sqs)]
    print_rows(rows, _STATUS_COLUMNS, output)
    if any(row["problem"] is not None for row in rows):
        raise typer.Exit(EXIT_NO)


@app.command("quarantined")
def queue_quarantined(
    show: Annotated[str | None, typer.Option("--show", metavar="N", help=f"Print one whole entry: {_NAME}")] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what lies in quarantine, the oldest first, with its reasons; it stays there."""
    from signer.sqs.set_aside import SetAside, named

    with errors_to_exit(), _client(config) as (client, sqs), SetAside(client, sqs).entries() as entries:
        chosen = None if show is None else named(entries, show)
    if chosen is not None:
        # Escaped down to ASCII: whatever is in it commands no terminal.
        typer.echo(json.dumps(_whole(chosen), indent=2))
        return
    print_rows([_row(number, entry) for number, entry in enumerate(entries, 1)], _ENTRY_COLUMNS, output)


@app.command("replay")
def queue_replay(
    entries: Annotated[list[str], typer.Argument(metavar="N...", help=_NAME)], config: ConfigOption = None
) -> None:
    """Send batches in once more, as they first came; each leaves quarantine once the inbound queue has it.

    Nothing is signed otherwise than before, however often it is replayed: the ledger sees to that. All N are looked
    up before the first is sent.
    """
    from signer.sqs.set_aside import SetAside, named

    with errors_to_exit(), _client(config) as (client, sqs):
        quarantine = SetAside(client, sqs)
        with quarantine.entries() as found:
            for entry in [named(found, name) for name in entries]:
                quarantine.replay(entry)
                typer.echo(printable(f"replayed {entry.entry_id}, batch {entry.reasons.get('batch_id')}"))


@contextmanager
def _client(config: Path | None) -> Iterator[tuple["SQSClient", SqsSettings]]:
    from signer.sqs.client import make_client

    sqs = settings.load(config).sqs
    if sqs is None:
        msg = "the settings name no queues ([sqs])"
        raise ConfigurationError(msg)
    with closing(make_client(sqs)) as client:
        yield client, sqs


def _row(number: int, entry: "Entry") -> dict[str, Any]:
    reasons = entry.reasons
    return {
        "n": number,
        "entry": entry.entry_id,
        "set_aside_at": entry.sent_at.isoformat(timespec="seconds"),
        **{name: reasons.get(name) for name in ("code", "batch_id", "receive_count", "message")},
        "history": reasons.get("history", []),
    }


def _whole(entry: "Entry") -> dict[str, Any]:
    attributes = {
        name: value.get("StringValue", "(binary)") for name, value in sorted(entry.delivery.attributes.items())
    }
    return {
        "entry": entry.entry_id,
        "set_aside_at": entry.sent_at.isoformat(timespec="seconds"),
        "reasons": entry.reasons,
        "attributes": {name: value for name, value in attributes.items() if name != "quarantine"},
        "body": entry.delivery.body,
    }
