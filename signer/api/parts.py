"""What the routes stand on, opened and closed by whoever builds the application."""

from dataclasses import dataclass

from signer.api.auth import Authenticator
from signer.authority import Authority
from signer.inquiries import Inquiries
from signer.logs import Logger
from signer.metrics import Metrics
from signer.readiness import Readiness
from signer.rehearsal import Rehearsal
from signer.settings import HttpSettings
from signer.signing import SigningService


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the service that HTTP reaches."""

    service: SigningService
    inquiries: Inquiries
    rehearsal: Rehearsal
    readiness: Readiness
    authority: Authority
    authenticator: Authenticator
    metrics: Metrics
    logger: Logger
    settings: HttpSettings
    signing_timeout_s: float
    """From the first header of a request to its last signature."""
    sessions: int
    """Signing sessions of the HSM."""
