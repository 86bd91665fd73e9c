"""`signer ledger`: what was signed, or is bound to be."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from signer import settings
from signer.cli.printing import EXIT_NO, ConfigOption, Output, OutputOption, errors_to_exit, print_rows

if TYPE_CHECKING:
    from signer.ledger.record import Record

app: Final = typer.Typer(help="The sign-once ledger.", no_args_is_help=True)
_COLUMNS: Final = ("key_alias", "at", "event", "by", "told")


@app.command("find")
def ledger_find(
    transaction_id: Annotated[str, typer.Argument(metavar="TRANSACTION_ID")],
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the history of a transaction under every key: who bound it to what, who took it over, what was signed.

    It may be asked while the service runs. The exit status is 1 if the ledger knows nothing of it.
    """
    from signer.ledger.history import find

    with errors_to_exit():
        records = find(settings.load(config).ledger, transaction_id)
    now = time.time()
    if output is Output.JSON:
        typer.echo(json.dumps([_whole(record, now) for record in records], indent=2))
    elif records:
        print_rows([row for record in records for row in _rows(record, now)], _COLUMNS, output)
    if not records:
        typer.echo("the ledger knows nothing of this transaction", err=True)
        raise typer.Exit(EXIT_NO)


def _rows(record: "Record", now: float) -> list[dict[str, Any]]:
    from signer.ledger.history import events_of, state_of

    whole, alias = _whole(record, now), record.claim.key_alias
    told = {"bound": f"{whole['algorithm']} {whole['digest']}"}
    if record.take_overs > len(record.former):
        told["taken over"] = f"{record.take_overs} times in all; these are the latest"
    if record.signature is not None:
        told["completed"] = f"{record.signature.key_label}, audit id {record.signature.audit_id}"
    rows = [{"key_alias": alias, **asdict(each), "told": told.get(each.event)} for each in events_of(record)]
    if record.signature is None:
        until = f"until {whole['lease_expires_at']}" if whole["lease_expires_at"] else "its lease was ended"
        rows.append({"key_alias": alias, "at": None, "event": state_of(record, now), "by": None, "told": until})
    return rows


def _whole(record: "Record", now: float) -> dict[str, Any]:
    from signer.ledger.history import events_of, rfc_3339, state_of

    return {
        "transaction_id": record.claim.transaction_id,
        "key_alias": record.claim.key_alias,
        "state": state_of(record, now),
        "digest": f"sha256:{record.claim.digest.hex()}",
        "algorithm": record.claim.algorithm,
        "take_overs": record.take_overs,
        "lease_expires_at": rfc_3339(record.lease_expires_at) if record.lease_expires_at else None,
        "events": [asdict(event) for event in events_of(record)],
        "signature": record.signature.to_message() if record.signature is not None else None,
    }
