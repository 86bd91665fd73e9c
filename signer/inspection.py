"""What commands learn about the keys: each looks once at the HSM, beside whatever service runs, and signs nothing."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry

from signer import logs
from signer.hsm.attestation import Attestation, attest
from signer.hsm.errors import HsmFault
from signer.hsm.hung_calls import nobody_waits
from signer.hsm.journal import Journal
from signer.hsm.key_versions import KeyVersions
from signer.hsm.module import Module, crypto_user_of
from signer.metrics import Metrics
from signer.ports import KeyVersion, SigningKey, VersionState
from signer.settings import Settings, read_pin
from signer.versions import KEY_SET_MAX_AGE_S, LEAD_LOOKS
from signer.wiring import forbid_core_files, key_specs, open_key_ring, utc_now
from signer.work import timestamp


def checked_keys(settings: Settings) -> list[SigningKey]:
    """Give every version that passed its checks; raises `KeyRefusedError` for a key that has none to sign with."""
    with open_key_ring(settings, Metrics(CollectorRegistry()), logs.get("signer"), sessions=1) as key_ring:
        versions = [version for alias in key_ring.aliases() for version in key_ring.versions(alias)]
        return [version.key for version in versions if version.key is not None]


def attest_keys(settings: Settings) -> list[Attestation]:
    """Examine every version of every key, right or wrong; signs nothing. Raises `SignerError`."""
    with _logged_in(settings) as (module, crypto_user):
        return attest(module, key_specs(settings), crypto_user, timestamp(utc_now()))


def planned_versions(settings: Settings) -> list[KeyVersion]:
    """Give every version of every key by its plan and its checks; signs nothing. Raises `SignerError`."""
    journal = Journal(Metrics(CollectorRegistry()).hsm, logs.get("signer"), utc_now)
    with _logged_in(settings) as (module, crypto_user):
        versions = KeyVersions(key_specs(settings), journal, utc_now, nobody_waits)
        versions.look(module.open_session(), module.token_serial, crypto_user)
        return [version for alias in versions.aliases() for version in versions.expected(alias)]


def short_notice(version: KeyVersion, now: datetime, settings: Settings) -> str | None:
    """Say what follows if a version gets ready only now, where that is too late for its moment; None: in good time."""
    if version.state is not VersionState.UPCOMING or version.active_from is None:
        return None
    ahead_s = (version.active_from - now).total_seconds()
    if ahead_s >= KEY_SET_MAX_AGE_S:
        return None
    if version.ready:
        late = f"who keeps key sets for {KEY_SET_MAX_AGE_S} s may lack it"
        return f"{ahead_s:.0f} s ahead: unless the service publishes it since before that, {late}"
    lead_s = LEAD_LOOKS * settings.readiness_interval_s
    return f"late: a task that finds it publishes it at once, and signs with it {lead_s:g} s later at the earliest"


@contextmanager
def _logged_in(settings: Settings) -> Iterator[tuple[Module, str]]:
    """Log in once, for a command that looks at keys; gives the module and the Crypto User."""
    forbid_core_files()
    pin = read_pin(settings.hsm)
    crypto_user = crypto_user_of(pin, settings.hsm.crypto_user)
    with closing(Module(settings.hsm.module, settings.hsm.token)) as module:
        try:
            module.log_in(pin)
            yield module, crypto_user
        except HsmFault as fault:
            raise fault.error from None
