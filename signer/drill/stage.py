"""What the drill plays on: queues, ledger and audit log of its own, and the service over a token behind the shim."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal
from urllib.parse import urlsplit

from signer import settings
from signer.demo.stack import KEY_LABEL, Emulator, Stack, Token, provision
from signer.drill.supervisor import Supervisor
from signer.errors import ConfigurationError, UnavailableError
from signer.wiring import utc_now
from softhsm.shim.client import LIBRARY, Shim

_OTHER_LABEL: Final = "drill-other-key"
_TIMEOUT_S: Final = 5.0
# What an operator would choose larger: a drill must not last for hours.
_QUICK: Final = {
    "SIGNER_SQS__VISIBILITY_TIMEOUT_S": "5",
    "SIGNER_SQS__RETRY_AFTER_S": "1",
    "SIGNER_SQS__WAIT_S": "1",
}
_OWN_TOKEN: Final = {"SIGNER_HSM__SESSIONS": "4", "SIGNER_HSM__CALL_TIMEOUT_S": "1"}


@dataclass(frozen=True, slots=True)
class Target:
    """The token that is drilled."""

    token: Token
    preset: Literal["cloudhsm"] | None
    environment: dict[str, str]
    other_label: str | None
    """Of a key that the service does not use; None if the token is known to hold no other."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service, and all that a fault or an operator can reach."""

    stack: Stack
    shim: Shim
    supervisor: Supervisor
    other_label: str | None

    def get(self, path: str) -> str | None:
        """Give what the service answers with 200; None for anything else, and while it is down."""
        connection = http.client.HTTPConnection(urlsplit(self.stack.http_url).netloc, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        else:
            return text if response.reason == "OK" else None
        finally:
            connection.close()

    def clear_breaker(self) -> None:
        """Do what an operator does who has looked into wrong signatures; raises `UnavailableError`."""
        command = [sys.executable, "-m", "signer", "hsm", "clear", "--config", str(self.stack.config)]
        command += ["--by", "drill", "--reason", "the drill had the signatures spoiled"]
        done = subprocess.run(  # noqa: S603 - our own command
            command, env=self.stack.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            msg = f"signer hsm clear ended with status {done.returncode}: {done.stderr.strip()}"
            raise UnavailableError(msg)


@contextmanager
def open_stage(directory: Path, config: Path | None, alias: str | None) -> Iterator[Stage]:
    """Bring everything up in an empty `directory`, over a fresh SoftHSM token or the one of the settings `config`.

    Raises `ConfigurationError` for a token that is not said to be no production.
    """
    if not LIBRARY.is_file():
        msg = f"the PKCS#11 shim is not built: run softhsm/shim/build.sh, which makes {LIBRARY}"
        raise ConfigurationError(msg)
    target = _own_target(directory) if config is None else _configured_target(settings.load(config), alias)
    with ExitStack() as closing:
        shim = Shim(Path(closing.enter_context(TemporaryDirectory(prefix="drill"))))  # a socket's path must be short
        emulator = Emulator(directory)
        closing.callback(emulator.close)
        stack = Stack(directory, emulator, target.token)
        stack.environment = {
            **{name: value for name, value in stack.environment.items() if not name.upper().startswith("SIGNER_")},
            **shim.environment(target.token.module, target.preset),
            **_QUICK,
            **target.environment,
            "SIGNER_HSM__MODULE": str(LIBRARY),
        }
        supervisor = Supervisor(stack)
        closing.callback(supervisor.close)
        yield Stage(stack, shim, supervisor, target.other_label)


def _own_target(directory: Path) -> Target:
    token = provision(directory / "token", "signer-drill", (KEY_LABEL, _OTHER_LABEL))
    return Target(token, "cloudhsm", _OWN_TOKEN, _OTHER_LABEL)


def _configured_target(configured: settings.Settings, alias: str | None) -> Target:
    """Take token, PIN file and one key from the settings of somebody else's service, and nothing more."""
    hsm = configured.hsm
    if hsm.production:
        msg = "hsm.production is not false: a drill breaks what the token is in use for"
        raise ConfigurationError(msg)
    if hsm.pin_file is None:
        msg = "the drill needs hsm.pin_file: it would not hand a PIN on"
        raise ConfigurationError(msg)
    if alias is not None and alias not in configured.keys:
        msg = "the settings have no key of that alias"
        raise ConfigurationError(msg)
    plan = configured.keys[alias or next(iter(configured.keys))].plan
    key = [version for version in plan if version.active_from is None or version.active_from <= utc_now()][-1]
    labels = [version.label for other in configured.keys.values() for version in other.plan]
    others = [label for label in labels if label != key.label]
    environment = {
        "SIGNER_HSM__SESSIONS": str(hsm.sessions),
        "SIGNER_HSM__CALL_TIMEOUT_S": str(hsm.call_timeout_s),
        "SIGNER_KEYS__SETTLEMENT__LABEL": key.label,
        **({"SIGNER_HSM__CRYPTO_USER": hsm.crypto_user} if hsm.crypto_user else {}),
        **({"SIGNER_KEYS__SETTLEMENT__FINGERPRINT": key.fingerprint} if key.fingerprint else {}),
    }
    if key.waive:
        environment["SIGNER_KEYS__SETTLEMENT__WAIVE"] = json.dumps(sorted(key.waive))
    conf = Path(os.environ.get("SOFTHSM2_CONF", "/etc/softhsm/softhsm2.conf"))
    token = Token(hsm.module.absolute(), conf, hsm.token, hsm.pin_file.absolute())
    return Target(token, None, environment, others[0] if others else None)
