"""How callers of the HTTP entrance prove who they are: the sections below `http` in the settings."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

TokenAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures only: with a shared secret (HS256) whoever can check a token can also make one."""
_VISIBLE: Final = r"^[!-~]{1,255}$"


class Section(BaseModel):
    """A table of the settings file: frozen, without unknown members, and silent about what it was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def is_loopback(host: str) -> bool:
    """Tell whether this is a loopback address; raises `ValueError`, which does not quote it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        msg = "not an IP address"
        raise ValueError(msg) from None


def _network(value: Any) -> Any:
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        msg = "not an IP network such as 10.0.1.0/24"
        raise ValueError(msg) from None


Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]


class TlsSettings(Section):
    """TLS in the service itself; the files are read again when they change."""

    certificate: Path
    """PEM: the server's own, then its intermediates."""
    key: Path
    """PEM, without a passphrase, not open to every user."""
    client_ca: Path | None = None
    """PEM: who may vouch for clients. None: clients show no certificate."""
    client_crl: Path | None = None
    """PEM: a revocation list of every certificate authority in `client_ca`."""
    client_certificate: Literal["required", "optional"] = "required"
    """`optional` lets in who has none, for a bearer token or a health check; one that is shown must be good."""
    reload_interval_s: float = Field(default=1.0, gt=0, le=3600)
    """How often the files are looked at."""

    @model_validator(mode="after")
    def _revocation_needs_authorities(self) -> Self:
        if self.client_crl is not None and self.client_ca is None:
            msg = "client_crl needs client_ca"
            raise ValueError(msg)
        return self


class ProxySettings(Section):
    """An Application Load Balancer that verifies client certificates (mutual TLS in `verify` mode)."""

    networks: tuple[Network, ...] = Field(min_length=1)
    """Where it connects from; its headers are believed from here and refused from everywhere else."""


class JwtSettings(Section):
    """OAuth 2 bearer tokens in the form of a JWT (RFC 9068) from one issuer."""

    issuer: str = Field(pattern=_VISIBLE)
    """What `iss` must be."""
    audience: str = Field(pattern=_VISIBLE)
    """What `aud` must be, or contain."""
    jwks_url: str | None = None
    jwks_file: Path | None = None
    jwks_ca: Path | None = None
    """PEM: who vouches for the server of `jwks_url`; None: whom the machine trusts."""
    algorithms: frozenset[TokenAlgorithm] = Field(default=frozenset({"RS256"}), min_length=1)
    leeway_s: float = Field(default=30.0, ge=0, le=120)
    """How far the issuer's clock may differ from ours."""
    max_lifetime_s: float = Field(default=86_400.0, gt=0, le=31_536_000)
    """From `iat` to `exp`, give or take `leeway_s`; a longer-lived token is refused."""
    refresh_s: float = Field(default=300.0, gt=0, le=86_400)
    """How often the keys are fetched."""
    max_stale_s: float = Field(default=86_400.0, gt=0, le=604_800)
    """How long keys are still used when they can no longer be fetched."""

    @field_validator("issuer")
    @classmethod
    def _one_fragment(cls, issuer: str) -> str:
        if "#" in issuer:
            msg = "an issuer contains no #, which separates it from the subject in a caller's name"
            raise ValueError(msg)
        return issuer

    @field_validator("jwks_url")
    @classmethod
    def _only_https(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
        except ValueError:  # whose words quote the URL, which may hold a password
            msg = "not a URL"
            raise ValueError(msg) from None
        if parts.scheme == "https" and parts.hostname:
            return url
        if parts.scheme == "http" and parts.hostname in {"127.0.0.1", "::1"}:
            return url
        msg = "keys are fetched by https, or by http from this very machine"
        raise ValueError(msg)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            msg = "give exactly one of jwks_url and jwks_file"
            raise ValueError(msg)
        return self


class HealthSettings(Section):
    """A plain listener of its own for /livez, /readyz and /metrics, which are then served nowhere else."""

    host: str = "127.0.0.1"
    port: int = Field(default=8081, ge=0, le=65535)
    max_connections: int = Field(default=64, ge=1, le=1024)

    @field_validator("host")
    @classmethod
    def _an_address(cls, host: str) -> str:
        is_loopback(host)
        return host
