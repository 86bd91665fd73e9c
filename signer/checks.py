"""What `signer check` looks at: module, token, login, keys, queues and disk, with a fix for each failure."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from signer.errors import SignerError
from signer.hsm.compliance import checked_public_key
from signer.hsm.errors import HsmFault
from signer.hsm.module import Module, crypto_user_of
from signer.ledger.items import TTL
from signer.ledger.table import forgets, require_table
from signer.ledger.table import make_client as make_ledger_client
from signer.settings import LedgerSettings, Settings, SqsSettings, read_pin
from signer.signatures import fingerprint
from signer.sqs.client import make_client
from signer.wiring import forbid_core_files, key_specs

_MIN_FREE_BYTES: Final = 1 << 30
_MODULE_FIX: Final = "Check hsm.module, hsm.token and hsm.pin_file, and the module's own configuration."
_LOGIN_FIX: Final = "Do not try the same PIN again: five wrong ones lock a CloudHSM user. Compare user and password."
_KEY_FIX: Final = "Generate the key as softhsm/provision.py does, or correct its label or fingerprint in the settings."
_QUEUE_FIX: Final = "Check the queue's URL, AWS_REGION, the credentials and the queue policy."
_TABLE_FIX: Final = "Check ledger.table, AWS_REGION and the credentials; docs/ledger.md says what table it needs."
_DISK_FIX: Final = "Free at least 1 GiB: a full disk stops signing, since nothing is released without its audit record."


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    subject: str
    ok: bool
    found: str
    fix: str | None = None
    """What to do about it; None when all is well."""


def run_checks(settings: Settings) -> Iterator[Check]:
    """Look at everything the service stands on, one thing after another. Spends exactly one login."""
    yield from _hsm(settings)
    if settings.sqs is not None:
        yield from _queues(settings.sqs)
    yield from _disk("audit log", settings.audit.directory)
    if settings.ledger.path is not None:
        yield from _ledger(settings.ledger.path)
    if settings.ledger.table is not None:
        yield from _table(settings.ledger, settings.ledger.table)


def _hsm(settings: Settings) -> Iterator[Check]:
    forbid_core_files()
    try:
        pin = read_pin(settings.hsm)
        crypto_user = crypto_user_of(pin, settings.hsm.crypto_user)
        module = Module(settings.hsm.module, settings.hsm.token)
    except SignerError as error:
        yield Check("module and token", ok=False, found=error.message, fix=_MODULE_FIX)
        return
    try:
        yield Check("module", ok=True, found=f"{settings.hsm.module}, used with OS locking")
        yield Check("token", ok=True, found=f"{settings.hsm.token}, serial {module.token_serial}")
        try:
            module.log_in(pin)
        except HsmFault as fault:
            yield Check("login", ok=False, found=str(fault), fix=_LOGIN_FIX)
            return
        yield Check("login", ok=True, found=f"Crypto User {crypto_user}")
        yield from _keys(settings, module)
    finally:
        module.close()


def _keys(settings: Settings, module: Module) -> Iterator[Check]:
    session = module.open_session()
    try:
        for spec in key_specs(settings):
            try:
                public_key = checked_public_key(session, spec)
            except (SignerError, HsmFault) as error:
                yield Check(f"key {spec.alias}", ok=False, found=str(error), fix=_KEY_FIX)
            else:
                waived = f"; waived: {', '.join(sorted(spec.waived))}" if spec.waived else ""
                yield Check(f"key {spec.alias}", ok=True, found=f"{spec.label}, {fingerprint(public_key)}{waived}")
    finally:
        module.close_session(session)


def _queues(settings: SqsSettings) -> Iterator[Check]:
    try:
        client = make_client(settings)
    except SignerError as error:
        yield Check("queues", ok=False, found=error.message, fix=_QUEUE_FIX)
        return
    for name in ("inbound", "outbound", "quarantine"):
        subject, url = f"{name} queue", getattr(settings, f"{name}_url")
        try:
            attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            yield Check(subject, ok=False, found=f"the queue answers {code}", fix=_QUEUE_FIX)
        except BotoCoreError as error:
            yield Check(subject, ok=False, found=f"no answer ({type(error).__name__})", fix=_QUEUE_FIX)
        else:
            yield _queue_size(subject, int(attributes.get("MaximumMessageSize", 0)), settings.max_message_bytes)


def _queue_size(subject: str, takes: int, wanted: int) -> Check:
    if 0 < takes < wanted and subject != "inbound queue":
        fix = f"Set sqs.max_message_bytes to {takes}, or raise the queue's MaximumMessageSize."
        return Check(subject, ok=False, found=f"it takes {takes} bytes, the settings say {wanted}", fix=fix)
    return Check(subject, ok=True, found=f"reachable, takes {takes} bytes")


def _ledger(path: Path) -> Iterator[Check]:
    if path.is_dir():
        yield Check("ledger", ok=False, found=f"{path} is a directory", fix="Set ledger.path to a file in it.")
        return
    yield from _disk("ledger", path.parent)


def _table(settings: LedgerSettings, name: str) -> Iterator[Check]:
    try:
        with closing(make_ledger_client(settings)) as client:
            found = require_table(client, name)
            is_kept_tidy = forgets(client, name)
    except SignerError as error:
        yield Check("ledger", ok=False, found=error.message, fix=_TABLE_FIX)
        return
    yield Check("ledger", ok=True, found=found)
    told = "on" if is_kept_tidy else "off: nothing is ever forgotten, and the table grows"
    fix = None if is_kept_tidy else f"Turn the table's TTL on, with the attribute {TTL}."
    yield Check("ledger TTL", ok=is_kept_tidy, found=told, fix=fix)


def _disk(subject: str, directory: Path) -> Iterator[Check]:
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"signer check")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        fix = "Give the service's user a directory it may write to, on a disk that survives it."
        yield Check(subject, ok=False, found=f"{existing} cannot be written: {error.strerror}", fix=fix)
        return
    free = shutil.disk_usage(existing).free
    found = f"{directory}, {free / (1 << 30):.1f} GiB free"
    yield Check(subject, ok=free >= _MIN_FREE_BYTES, found=found, fix=None if free >= _MIN_FREE_BYTES else _DISK_FIX)
