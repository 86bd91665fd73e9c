"""The settings of one key: who may use it, and the versions that it has in the course of time."""

from datetime import UTC
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from signer.http_settings import Section

Waiver = Literal["always_sensitive", "never_extractable", "local"]
_Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
_FINGERPRINT: Final = r"^sha256:[0-9a-f]{64}$"


class VersionSettings(Section):
    """One version of a key."""

    label: str = Field(min_length=1, max_length=128)
    fingerprint: str | None = Field(default=None, pattern=_FINGERPRINT)
    active_from: _Moment | None = None
    """It signs from this moment on, if it is ready. None, for the first: since ever."""
    verify_until: _Moment | None = None
    """From this moment on it is neither used nor published. None: no end is set."""
    waive: frozenset[Waiver] = frozenset()
    """Attributes an imported key cannot have; each waiver is logged loudly at every start."""

    @model_validator(mode="after")
    def _verifies_after_it_signs(self) -> Self:
        if self.active_from is not None and self.verify_until is not None and self.verify_until <= self.active_from:
            msg = "verify_until must be after its active_from"
            raise ValueError(msg)
        return self


class KeySettings(Section):
    """One key alias: either `label` (and `fingerprint`, `waive`) for its only version, or `versions`."""

    label: str | None = Field(default=None, min_length=1, max_length=128)
    fingerprint: str | None = Field(default=None, pattern=_FINGERPRINT)
    waive: frozenset[Waiver] = frozenset()
    versions: tuple[VersionSettings, ...] = Field(default=(), max_length=16)
    """Eldest first."""
    callers: frozenset[str] = frozenset()
    """Who may sign with it: `queue:<queue name>`, `http:loopback`. Empty: nobody."""
    require_transaction_id: bool = True
    """Sign only what names its transaction; else an HTTP request may do without."""

    @property
    def plan(self) -> tuple[VersionSettings, ...]:
        """Every version, eldest first."""
        if self.label is None:
            return self.versions
        return (VersionSettings(label=self.label, fingerprint=self.fingerprint, waive=self.waive),)

    @model_validator(mode="after")
    def _label_or_versions(self) -> Self:
        alone = self.label is not None
        if alone == bool(self.versions) or (not alone and (self.fingerprint or self.waive)):
            msg = "give either label, with fingerprint and waive, or versions, each with its own"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_after_another(self) -> Self:
        if len({version.label for version in self.versions}) < len(self.versions):
            msg = "two versions have one label"
            raise ValueError(msg)
        for elder, younger in zip(self.versions, self.versions[1:], strict=False):
            if younger.active_from is None or (elder.active_from and elder.active_from >= younger.active_from):
                msg = "versions stand eldest first, each but the first with an active_from after the one before"
                raise ValueError(msg)
            if elder.verify_until is not None and elder.verify_until <= younger.active_from:
                msg = "a version must verify beyond the active_from of the next"
                raise ValueError(msg)
        return self
