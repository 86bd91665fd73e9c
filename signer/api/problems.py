"""Errors become RFC 9457 problem documents here: the one table from our errors to HTTP status codes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, Self

from starlette.responses import Response

from signer import strict_json
from signer.api.auth_errors import BadTokenError, CredentialsRequestError
from signer.api.errors import (
    BodyTimeoutError,
    ClientGoneError,
    HeadersTooLargeError,
    HeadTimeoutError,
    MethodNotAllowedError,
    MisdirectedRequestError,
    NotFoundError,
    UnsupportedMediaTypeError,
)
from signer.errors import (
    BatchAbandonedError,
    BodyTooLargeError,
    ClaimInProgressError,
    ClaimLostError,
    ConfigurationError,
    ConflictError,
    DeadlineExceededError,
    InvalidInputError,
    KilledError,
    NotAuthorisedError,
    RateLimitedError,
    SignatureInvalidError,
    SignerError,
    UnauthenticatedError,
    UnavailableError,
    UnknownKeyError,
)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
CATALOGUE_PATH: Final = "/docs/errors"
"""Where the service tells what each code means; docs/errors.md has the same anchors."""
CLIENT_GONE_STATUS: Final = 499
"""Nobody reads it; nginx's number, for the metrics and the log."""
RETRY_AFTER_S: Final = 1

STATUS_BY_ERROR: Final[Mapping[type[SignerError], int]] = MappingProxyType(
    {
        InvalidInputError: HTTPStatus.BAD_REQUEST,
        UnknownKeyError: HTTPStatus.NOT_FOUND,
        NotFoundError: HTTPStatus.NOT_FOUND,
        MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
        BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        MisdirectedRequestError: HTTPStatus.MISDIRECTED_REQUEST,
        HeadersTooLargeError: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        HeadTimeoutError: HTTPStatus.REQUEST_TIMEOUT,
        BodyTimeoutError: HTTPStatus.REQUEST_TIMEOUT,
        ClientGoneError: CLIENT_GONE_STATUS,
        UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
        CredentialsRequestError: HTTPStatus.BAD_REQUEST,
        NotAuthorisedError: HTTPStatus.FORBIDDEN,
        # Not 503: a client must not ask again until a person has told it to.
        KilledError: HTTPStatus.FORBIDDEN,
        RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
        ConflictError: HTTPStatus.CONFLICT,
        ClaimInProgressError: HTTPStatus.CONFLICT,
        ClaimLostError: HTTPStatus.CONFLICT,
        BatchAbandonedError: HTTPStatus.CONFLICT,
        UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
        # Told apart from 503 because it was taken in: a signature may exist, and asking again gives that very one.
        DeadlineExceededError: HTTPStatus.GATEWAY_TIMEOUT,
        # The HSM behind us answered, and wrongly (RFC 9110, section 15.6.3).
        SignatureInvalidError: HTTPStatus.BAD_GATEWAY,
        ConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    }
)

_CHALLENGE: Final = 'Bearer realm="signer"'
# RFC 6750, section 3.1.
_OAUTH_ERRORS: Final[Mapping[type[SignerError], str]] = MappingProxyType(
    {BadTokenError: "invalid_token", CredentialsRequestError: "invalid_request"}
)


def challenge_of(error: type[SignerError]) -> str | None:
    """Say in `WWW-Authenticate` how one may authenticate, which a 401 must (RFC 9110, section 15.5.2)."""
    if not issubclass(error, UnauthenticatedError):
        return None
    codes = [code for kind, code in _OAUTH_ERRORS.items() if issubclass(error, kind)]
    return ", ".join([_CHALLENGE, *(f'error="{code}"' for code in codes)])


def status_of(error: type[SignerError]) -> int:
    """Give the status of the nearest ancestor that the table lists; what has none is a defect of ours."""
    listed = (STATUS_BY_ERROR[ancestor] for ancestor in error.__mro__ if ancestor in STATUS_BY_ERROR)
    return next(listed, HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document (RFC 9457) before it knows its request; it never contains input."""

    status: int
    code: str
    detail: str
    retryable: bool = False
    challenge: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: SignerError) -> Self:
        """Describe one of our errors."""
        kind = type(error)
        challenge = challenge_of(kind)
        return cls(status_of(kind), error.code, error.message, error.retryable, challenge, error.retry_after_s)

    @property
    def type(self) -> str:
        """Lead to its entry in the error catalogue (RFC 9457, section 3.1.1)."""
        return f"{CATALOGUE_PATH}#{self.code}"

    def headers(self) -> dict[str, str]:
        """Give the headers that belong to it."""
        after_s = RETRY_AFTER_S if self.retry_after_s is None else max(1, math.ceil(self.retry_after_s))
        retry = {"Retry-After": str(after_s)} if self.retryable else {}
        return retry | ({"WWW-Authenticate": self.challenge} if self.challenge is not None else {})

    def body(self, request_id: str | None, **members: Any) -> bytes:
        """Give the document, with extension `members`."""
        return strict_json.dumps(
            {
                "type": self.type,
                "title": self.code.replace("_", " ").capitalize(),
                "status": int(self.status),
                "detail": self.detail,
                "code": self.code,
                "retryable": self.retryable,
                "request_id": request_id,
                **members,
            }
        )

    def response(self, request_id: str, **members: Any) -> Response:
        """Give the answer to the request with this id."""
        return Response(self.body(request_id, **members), int(self.status), self.headers(), PROBLEM_MEDIA_TYPE)


UNKNOWN_PROBLEM: Final = Problem.of(SignerError("a defect of the service; the request id finds it in the log"))
