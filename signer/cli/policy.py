"""`signer policy`: who may do what, what would happen and why, and the kill switch."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from signer import settings
from signer.cli.printing import EXIT_NO, ConfigOption, Output, OutputOption, errors_to_exit, print_rows, printable
from signer.errors import InvalidInputError, SignerError, UnknownKeyError
from signer.policy import Denial, Kill, Policy
from signer.policy_file import parse_policy, read_bytes
from signer.policy_kills import KillFile, Target

app: Final = typer.Typer(help="Who may do what, and the kill switch.", no_args_is_help=True)

_FileOption = Annotated[
    Path | None, typer.Option("--policy", help="A policy file, with the kill switch beside it, instead of settings.")
]
_KeyOption = Annotated[str | None, typer.Option("--key", help="Key alias.")]
_CallerOption = Annotated[str | None, typer.Option("--caller", help="The caller's name, as in the policy.")]
_ByOption = Annotated[str, typer.Option("--by", help="Who turns the switch, such as an e-mail address.")]
_ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit log.")]
_LIMITS: Final = ("max_batch", "transactions_per_second", "burst", "roles")
_GRANT_COLUMNS: Final = ("caller", "key", "operations", "algorithms", "content", "transaction_id", *_LIMITS)


@app.command("check")
def policy_check(
    file: Annotated[Path, typer.Argument(help="A policy file.")], output: OutputOption = Output.TABLE
) -> None:
    """Read a policy file as the service would, and print what it grants; every other thing is denied."""
    with errors_to_exit():
        policy = parse_policy(read_bytes(file, "policy file"))
    print_rows(_grants(policy), _GRANT_COLUMNS, output)


@app.command("explain")
def policy_explain(  # noqa: PLR0913 - each is an option of the command line
    caller: Annotated[str, typer.Option("--caller", help="The caller's name, as in the policy.")],
    key: Annotated[str, typer.Option("--key", help="Key alias.")],
    *,
    algorithm: Annotated[str, typer.Option("--algorithm", help="By its KMS name.")] = "RSASSA_PKCS1_V1_5_SHA_256",
    payload: Annotated[bool, typer.Option("--payload", help="The content is a payload, not a message.")] = False,
    digest: Annotated[bool, typer.Option("--digest", help="The content is a digest, not a message.")] = False,
    no_transaction_id: Annotated[bool, typer.Option("--no-transaction-id", help="It names no transaction.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="A signature is to be verified, not made.")] = False,
    policy: _FileOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether a request would be granted, and which rule decides; exit status 1 if it would not."""
    from signer.signatures import algorithm_named
    from signer.transactions import SigningRequest

    with errors_to_exit():
        asked = SigningRequest(key, "explained", bytes(32), algorithm_named(algorithm), not no_transaction_id)
        asked = replace(asked, content="digest" if digest else "payload" if payload else "message")
        in_force = _in_force(policy, config)
        denial = in_force.verification_denial(caller, asked) if verify else in_force.denial(caller, asked)
        denial = denial or (_key_denial(key, config) if policy is None else None)
    row: dict[str, Any] = {"allowed": "yes", "code": None, "rule": f"caller {caller}, key {key}", "message": None}
    if denial is not None:
        row = {"allowed": "NO", "code": denial.error.code, "rule": denial.rule, "message": denial.error.message}
    print_rows([row | _limits(in_force, caller)], ("allowed", "code", "rule", *_LIMITS), output)
    if denial is not None:
        raise typer.Exit(EXIT_NO)


@app.command("kill")
def policy_kill(
    by: _ByOption,
    reason: _ReasonOption,
    key: _KeyOption = None,
    caller: _CallerOption = None,
    policy: _FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Stop a key or a caller, in every task that shares the policy, within a second and over restarts.

    Exit status 1 if the policy does not name it: that stops nothing.
    """
    with errors_to_exit():
        target, file = _target(key, caller), _kill_file(policy, config)
        file.kill(target, _turn(by, reason))
    typer.echo(f"killed, in {file.path}", err=True)
    try:
        named = _names(_in_force(policy, config), target)
    except SignerError as error:
        typer.echo(printable(f"whether the policy names it cannot be checked: {error.message}"), err=True)
        return
    if not named:
        typer.echo(f"the policy names no such {target.kind}, so this stops nothing: look at the spelling", err=True)
        raise typer.Exit(EXIT_NO)


@app.command("revive")
def policy_revive(
    by: _ByOption,
    reason: _ReasonOption,
    key: _KeyOption = None,
    caller: _CallerOption = None,
    policy: _FileOption = None,
    config: ConfigOption = None,
) -> None:
    """Let a key or a caller go on; exit status 1 if nothing stopped it."""
    with errors_to_exit():
        target, file = _target(key, caller), _kill_file(policy, config)
        kill = file.revive(target, _turn(by, reason))
    if kill is None:
        typer.echo("it was not killed", err=True)
        raise typer.Exit(EXIT_NO)
    typer.echo(printable(f"revived; it was killed {kill.told()}"), err=True)


def _turn(by: str, reason: str) -> Kill:
    from signer.wiring import utc_now
    from signer.work import timestamp

    return Kill(by, reason, timestamp(utc_now()))


def _target(key: str | None, caller: str | None) -> Target:
    if key is not None and caller is None:
        return Target("key", key)
    if caller is not None and key is None:
        return Target("caller", caller)
    msg = "give exactly one of --key and --caller"
    raise InvalidInputError(msg)


def _names(policy: Policy, target: Target) -> bool:
    if target.kind == "caller":
        return target.name in policy.callers
    return any(target.name in known.keys for known in policy.callers.values())


def _kill_file(policy: Path | None, config: Path | None) -> KillFile:
    return KillFile(settings.kill_file_beside(policy) if policy is not None else settings.load(config).kill_file)


def _in_force(policy: Path | None, config: Path | None) -> Policy:
    kills = _kill_file(policy, config).read()
    if policy is not None:
        return replace(parse_policy(read_bytes(policy, "policy file")), kills=kills)
    from signer.wiring import policy_source

    source = policy_source(settings.load(config))
    rules = source.built_in if source.file is None else parse_policy(read_bytes(source.file, "policy file"))
    return replace(rules, kills=kills)


def _key_denial(key: str, config: Path | None) -> Denial | None:
    """Say what the service does, which asks the policy first, and its settings then."""
    if key in settings.load(config).keys:
        return None
    return Denial(UnknownKeyError("no key with this alias is configured"), f"settings: no key {key}")


def _grants(policy: Policy) -> list[dict[str, Any]]:
    return [
        {
            "caller": name,
            "key": alias,
            "operations": None if grant is None else ", ".join(sorted(grant.operations)),
            "algorithms": None if grant is None else ", ".join(sorted(grant.algorithms)),
            "content": None if grant is None else ", ".join(sorted(grant.contents)),
            "transaction_id": None if grant is None else "required" if grant.requires_transaction_id else "optional",
            **_limits(policy, name),
        }
        for name, known in policy.callers.items()
        for alias, grant in (known.keys.items() or [(None, None)])
    ]


def _limits(policy: Policy, caller: str) -> dict[str, Any]:
    known = policy.callers.get(caller)
    if known is None:
        return dict.fromkeys(_LIMITS)
    limited = known.transactions_per_s is not None
    burst = known.burst if limited else None
    values = (known.max_batch, known.transactions_per_s, burst, ", ".join(sorted(known.roles)))
    return dict(zip(_LIMITS, values, strict=True))
