"""Frozen settings: a TOML file, then `SIGNER_*` environment variables, then files that hold secrets."""

import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from signer.errors import ConfigurationError
from signer.http_settings import HealthSettings, JwtSettings, ProxySettings, Section, TlsSettings, is_loopback
from signer.key_settings import KeySettings

Seconds = Annotated[float, Field(gt=0, le=3600)]
ALIAS_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_PREFIX: Final = "SIGNER_"
_DELIMITER: Final = "__"
_CONFIG_VARIABLE: Final = "SIGNER_CONFIG"
_SHIM_PREFIX: Final = "SIGNER_SHIM_"
"""What softhsm/shim/ reads, which runs in the service's own process."""
_BUCKET: Final = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_FOLDERS: Final = "([A-Za-z0-9_-][A-Za-z0-9._-]*/)*"
_OTHERS_MAY_OPEN: Final = stat.S_IROTH | stat.S_IWOTH


class HsmSettings(Section):
    """The PKCS#11 module and how to log in."""

    module: Path
    token: str = Field(min_length=1, max_length=32)
    pin_file: Path | None = None
    pin: SecretStr | None = None
    crypto_user: str | None = None
    """Name for the audit log where the PIN does not have CloudHSM's `user:password` shape."""
    sessions: int = Field(default=2, ge=1, le=1024)
    """Threads that sign at once: the cores for SoftHSM; rate times latency for a network HSM."""
    call_timeout_s: Seconds = 5
    """A call into the HSM that takes longer is given up, its session and its thread with it."""
    warm_up_interval_s: float = Field(default=0.0, ge=0, le=10)
    """Pause between opening two sessions, so that a fleet that starts does not storm the HSM."""
    production: bool = True
    """Whether the token signs for real: no drill is run against it then."""
    latch_file: Path | None = None
    """Keeps the breaker open after wrong signatures until a person clears it; beside the audit log if not given."""

    @model_validator(mode="after")
    def _one_pin(self) -> Self:
        if (self.pin is None) == (self.pin_file is None):
            msg = "give exactly one of hsm.pin_file and hsm.pin"
            raise ValueError(msg)
        return self


class PayloadSettings(Section):
    """Bodies that are too large for a queue and lie in S3, in the format of the Amazon SQS Extended Client."""

    bucket: str = Field(pattern=f"^{_BUCKET}$")
    """Where signed batches are stored that the outbound queue does not take."""
    prefix: str = Field(default="signed/", pattern=f"^{_FOLDERS}$")
    kms_key: str | None = Field(default=None, min_length=1, max_length=2048)
    """Encrypts what is stored (SSE-KMS); None: the bucket's default encryption does."""
    accept: frozenset[Annotated[str, Field(pattern=f"^{_BUCKET}/{_FOLDERS}$")]] = frozenset()
    """Inbound bodies are fetched from here and nowhere else: `<bucket>/` or `<bucket>/<folder>/`."""
    bucket_owner: str | None = Field(default=None, pattern=r"^[0-9]{12}$")
    """The account that owns all these buckets; S3 then refuses any other's."""
    max_bytes: int = Field(default=16_777_216, ge=1024, le=268_435_456)
    """An inbound body beyond it is quarantined unread."""
    endpoint_url: str | None = None


class SqsSettings(Section):
    """The queues. Region and credentials come from the standard `AWS_*` variables."""

    inbound_url: str
    outbound_url: str
    quarantine_url: str
    endpoint_url: str | None = None
    wait_s: int = Field(default=10, ge=0, le=20)
    """Long poll. SIGTERM waits for it to end, so it is part of the drain time."""
    visibility_timeout_s: int = Field(default=60, ge=5, le=43200)
    max_transactions_in_flight: int = Field(default=20_000, ge=1, le=1_000_000)
    """No more is received while the batches at hand have so many; a larger one is signed while nothing else is."""
    max_batches_in_flight: int = Field(default=16, ge=1, le=100)
    """As many threads; what bounds small batches, and how many others may have meanwhile."""
    max_transactions: int = Field(default=10_000, ge=1, le=10_000)
    """Beyond this a batch is quarantined."""
    max_message_bytes: int = Field(default=1_048_576, ge=1024, le=1_048_576)
    """What the outbound queue takes (its `MaximumMessageSize`), attributes included."""
    retry_after_s: int = Field(default=5, ge=0, le=900)
    """How long a batch that could not be signed now stays hidden at first; see docs/queue.md for what follows."""
    redrive_reserve: int = Field(default=1, ge=0, le=100)
    """Of the inbound queue's `maxReceiveCount`, so many receives are kept for setting a batch aside."""
    payloads: PayloadSettings | None = None
    """None: a body that a queue does not take is refused, and so is every pointer."""


class HttpSettings(Section):
    """The HTTP entrance."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    max_body_bytes: int = Field(default=262_144, ge=1024, le=16_777_216)
    max_connections: int = Field(default=512, ge=1, le=65_536)
    """Beyond it a connection is answered 503 and closed; at least 128 file descriptors must remain."""
    max_in_flight: int = Field(default=64, ge=1, le=4096)
    """Signing requests admitted at once; the next is answered 503."""
    max_batch_transactions: int = Field(default=500, ge=1, le=500)
    """In one request to `/v1/sign-batch`; so many share one durable commit."""

    tls: TlsSettings | None = None
    proxy: ProxySettings | None = None
    jwt: JwtSettings | None = None
    health: HealthSettings | None = None
    audited_refusals_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Of one peer, or caller where that is proven, and ten times as many of all; what is beyond is counted."""

    @property
    def authenticates(self) -> bool:
        """Whether callers prove who they are; else they are whoever is on this machine."""
        return self.takes_certificates or self.jwt is not None

    @property
    def takes_certificates(self) -> bool:
        """Whether a client certificate names a caller."""
        return self.proxy is not None or (self.tls is not None and self.tls.client_ca is not None)

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        is_loopback(host)
        return host

    @model_validator(mode="after")
    def _strangers_prove_who_they_are(self) -> Self:
        if is_loopback(self.host):
            return self
        if not self.authenticates:
            msg = "callers prove nothing: it binds to a loopback address only; give http.tls.client_ca, proxy or jwt"
            raise ValueError(msg)
        if self.tls is None and self.proxy is None:
            msg = "bearer tokens travel encrypted only: beyond a loopback address they need http.tls or http.proxy"
            raise ValueError(msg)
        return self


class LedgerSettings(Section):
    """The sign-once ledger: a file that one process holds, or a table that a fleet shares."""

    backend: Literal["sqlite", "dynamodb"] = "sqlite"
    path: Path | None = None
    """Of the SQLite file."""
    table: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{3,255}$")
    """The DynamoDB table. Region and credentials come from the standard `AWS_*` variables."""
    endpoint_url: str | None = None
    parallel_transactions: int = Field(default=8, ge=1, le=64)
    """DynamoDB transactions, of up to 100 items each, under way at once."""
    lease_s: Seconds = 120
    """How long a claim that was not completed keeps others away; longer than any signing deadline."""
    commit_timeout_s: Seconds = 5
    retention_days: int = Field(default=400, ge=30, le=3660)
    """How long a transaction is remembered after its last change; then it may be signed over other content."""
    accept_new: bool = False
    """Let an empty ledger take the place of one that is lost: what was signed before may then be signed otherwise."""

    @property
    def retention_s(self) -> float:
        """The retention in seconds."""
        return self.retention_days * 86_400.0

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        wanted, others = ("path", ("table", "endpoint_url")) if self.backend == "sqlite" else ("table", ("path",))
        if getattr(self, wanted) is None or any(getattr(self, other) is not None for other in others):
            msg = f"backend {self.backend} needs ledger.{wanted}, and takes no {' and no '.join(others)}"
            raise ValueError(msg)
        return self


class AuditSettings(Section):
    """The audit log."""

    directory: Path
    segment_bytes: int = Field(default=67_108_864, ge=4096)
    commit_timeout_s: Seconds = 5
    accept_new: bool = False
    """Let a new chain take the place of one that is lost."""


class PolicySettings(Section):
    """Who may do what: see docs/policy.md."""

    file: Path | None = None
    """The policy file. None: who `keys.*.callers` names may have everything signed with that key."""
    kill_file: Path | None = None
    """The kill switch; beside the policy file, or else beside the audit log, if not given."""
    audited_refusals_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Records of refusals of one caller by the policy; ten times as many of all. What is beyond is counted."""


_SECTIONS: Final = frozenset({"policy", "hsm", "keys", "ledger", "audit", "sqs", "http"})


class Settings(BaseSettings):
    """Everything `signer serve` needs; environment variables override the file (`SIGNER_HSM__TOKEN`, ...)."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter=_DELIMITER, hide_input_in_errors=True
    )

    hsm: HsmSettings
    keys: dict[Annotated[str, Field(pattern=ALIAS_PATTERN)], KeySettings] = Field(min_length=1)
    ledger: LedgerSettings
    audit: AuditSettings
    policy: PolicySettings = PolicySettings()
    sqs: SqsSettings | None = None
    http: HttpSettings | None = HttpSettings()
    signing_timeout_s: Seconds = 30
    """From the moment a request or batch is taken up to its last signature."""
    readiness_interval_s: Seconds = 15
    """Every key proves itself this often; readiness is lost after three intervals without."""
    drain_timeout_s: Seconds = 60
    """From SIGTERM to the end of the work in flight; Fargate gives at most 120 s."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    failpoint: str | None = Field(default=None, pattern=r"^[a-z_]{1,32}:[1-9][0-9]{0,5}$")
    """`NAME:N`: die when this place of `failpoints.NAMES` is reached for the Nth time; for crash tests."""

    @property
    def latch_file(self) -> Path:
        """Where it is remembered that a person must look before anything is signed."""
        directory = self.audit.directory
        return self.hsm.latch_file or directory.with_name(f"{directory.name}.hsm-latch.json")

    @property
    def kill_file(self) -> Path:
        """Where the kill switch is."""
        directory, file = self.audit.directory, self.policy.file
        beside = directory.with_name(f"{directory.name}.kills.json") if file is None else kill_file_beside(file)
        return self.policy.kill_file or beside

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        said = [alias for alias, key in self.keys.items() if key.callers or not key.require_transaction_id]
        if self.policy.file is not None and said:
            msg = (
                "callers and require_transaction_id stand in the policy file, not with keys, once policy.file is given"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _dies_in_tests_only(self) -> Self:
        if self.failpoint is not None and self.hsm.production:
            msg = "a failpoint needs hsm.production = false"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _lease_outlasts_signing(self) -> Self:
        if self.ledger.lease_s <= self.signing_timeout_s:
            msg = "ledger.lease_s must be longer than signing_timeout_s"
            raise ValueError(msg)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose contents `load` passes as arguments."""
        return env_settings, init_settings


def kill_file_beside(policy_file: Path) -> Path:
    """Give the place of the kill switch that belongs to a policy file."""
    return policy_file.with_suffix(".kills.json")


def load(path: Path | None) -> Settings:
    """Read settings from `path` (or `SIGNER_CONFIG`, or ./signer.toml); raises `ConfigurationError`.

    The error names each wrong setting and what is wrong with it, never its value.
    """
    _refuse_unknown_variables()
    source = path or Path(os.environ.get(_CONFIG_VARIABLE, "signer.toml"))
    values = _values_in(source) if path or source.exists() else {}
    try:
        return Settings(**values)
    except RecursionError:
        msg = "an environment variable is nested deeper than any setting is"
        raise ConfigurationError(msg) from None
    except SettingsError as error:
        # It names the section and keeps the text, which may hold a PIN, in its cause.
        msg = f"an environment variable does not hold JSON: {error}"
        raise ConfigurationError(msg) from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        msg = f"the settings are not valid: {problems}"
        raise ConfigurationError(msg) from None


def _values_in(source: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"the settings file {source} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    except (ValueError, RecursionError):  # a number of too many digits is no error of TOML's
        msg = f"the settings file {source} is not TOML"
        raise ConfigurationError(msg) from None
    # pydantic-settings takes some of these for arguments of its own: to read other files, or the command line.
    if any(name.startswith("_") for name in values):
        msg = "the settings are not valid: no setting begins with an underscore"
        raise ConfigurationError(msg)
    return values


def _refuse_unknown_variables() -> None:
    # pydantic-settings passes over them in silence: a misspelt section would leave its default in force.
    for variable in sorted(os.environ):
        name = variable.upper()
        if not name.startswith(_PREFIX) or name == _CONFIG_VARIABLE or name.startswith(_SHIM_PREFIX):
            continue
        field, nested, _ = name.removeprefix(_PREFIX).lower().partition(_DELIMITER)
        if field not in Settings.model_fields or (nested and field not in _SECTIONS):
            msg = f"the environment variable {variable} is no setting: SIGNER_<SECTION>__<NAME>"
            raise ConfigurationError(msg)


def read_pin(settings: HsmSettings) -> str:
    """Give the Crypto User's PIN; raises `ConfigurationError`. The caller keeps it no longer than the login."""
    if settings.pin is not None:
        pin = settings.pin.get_secret_value()
    elif settings.pin_file is not None:
        pin = _read_pin_file(settings.pin_file)
    else:  # pragma: no cover - the validator excludes it
        raise AssertionError
    if not pin.strip():
        # It would count as a wrong one.
        msg = "the PIN is empty"
        raise ConfigurationError(msg)
    return pin


def _read_pin_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            # Owner and group may read: secrets are mounted in containers with 0440.
            if os.fstat(file.fileno()).st_mode & _OTHERS_MAY_OPEN:
                msg = f"the PIN file {path} can be opened by every user of this machine: chmod 600 it"
                raise ConfigurationError(msg)
            return file.read().rstrip("\n")
    except OSError as error:
        msg = f"the PIN file {path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    except UnicodeDecodeError:
        msg = f"the PIN file {path} is not UTF-8"
        raise ConfigurationError(msg) from None
