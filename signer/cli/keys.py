"""`signer keys`: the signing keys as the HSM holds them."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Final

import typer

from signer import settings
from signer.cli.printing import EXIT_NO, ConfigOption, Output, OutputOption, errors_to_exit, print_rows, printable

app: Final = typer.Typer(help="The signing keys.", no_args_is_help=True)


@app.command("list")
def keys_list(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """List the configured keys as the HSM holds them; every one has passed its checks."""
    from signer import inspection

    with errors_to_exit():
        rows = [
            {
                "alias": key.alias,
                "label": key.label,
                "type": f"RSA-{key.public_key.key_size}",
                "fingerprint": key.fingerprint,
            }
            for key in inspection.checked_keys(settings.load(config))
        ]
    print_rows(rows, ("alias", "label", "type", "fingerprint"), output)


@app.command("rotation")
def keys_rotation(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show every version of every key, when it is to sign, and whether it passes its checks; signs nothing.

    Exit status 1 if one that signs or is to sign does not pass. The test signature is made by the service, and since
    when it publishes a version only it knows: `/readyz` tells of both.
    """
    from signer import inspection
    from signer.ports import VersionState
    from signer.wiring import utc_now
    from signer.work import timestamp

    def shown(moment: datetime | None) -> str | None:
        return None if moment is None else timestamp(moment)

    with errors_to_exit():
        loaded = settings.load(config)
        versions, now = inspection.planned_versions(loaded), utc_now()
    rows = [
        {
            "alias": version.alias,
            "label": version.label,
            "state": str(version.state),
            "active_from": shown(version.active_from),
            "verify_until": shown(version.verify_until),
            "ready": "yes" if version.ready else f"NO: {version.not_ready}",
            "warning": inspection.short_notice(version, now, loaded),
            "fingerprint": version.fingerprint,
        }
        for version in versions
    ]
    columns = ("alias", "label", "state", "active_from", "verify_until", "ready", "warning", "fingerprint")
    print_rows(rows, columns, output)
    if not all(version.ready for version in versions if version.state is not VersionState.RETIRED):
        raise typer.Exit(EXIT_NO)


@app.command("attest")
def keys_attest(config: ConfigOption = None, output: OutputOption = Output.TABLE) -> None:
    """Print every property of every key as the HSM tells it, beside what it should be; the JSON is for the auditor."""
    from signer import inspection
    from signer.hsm.attestation import rows

    with errors_to_exit():
        attestations = inspection.attest_keys(settings.load(config))
    if output is Output.JSON:
        typer.echo(json.dumps([asdict(attestation) for attestation in attestations], indent=2))
    else:
        for item in attestations:
            told = f"{item.alias}: label {item.label}, token {item.token} (serial {item.token_serial}), "
            typer.echo(printable(f"{told}Crypto User {item.crypto_user}, examined {item.examined_at}"))
        print_rows(list(rows(attestations)), ("alias", "subject", "found", "expected", "verdict"), output)
    if not all(attestation.compliant for attestation in attestations):
        raise typer.Exit(EXIT_NO)
