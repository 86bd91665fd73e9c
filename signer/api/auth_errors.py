"""Why credentials were not accepted: one code for each reason, the same in the answer, the audit log and the metrics.

A reason helps who holds honest credentials; it tells a forger nothing about a key or about who else is known.
"""

from signer.errors import UnauthenticatedError, UnavailableError


class CredentialsMissingError(UnauthenticatedError):
    """No client certificate and no bearer token came with the request."""

    code = "credentials_missing"


class AuthorizationSchemeError(UnauthenticatedError):
    """`Authorization` holds something that this service does not check."""

    code = "authorization_scheme_not_accepted"


class InsecureTransportError(UnauthenticatedError):
    """A bearer token came over a connection that anybody may have read: take it for stolen."""

    code = "insecure_transport"
    remedy = "Use https, and revoke this token."


class CredentialsRequestError(UnauthenticatedError):
    """The request carries credentials in a way that no request may (RFC 6750, section 3.1: `invalid_request`)."""

    code = "credentials_malformed"


class MultipleCredentialsError(CredentialsRequestError):
    """Two credentials of one kind: two readers could each believe another one."""

    code = "multiple_credentials"


class TokenInQueryError(CredentialsRequestError):
    """A token in the query string ends up in logs and histories: take it for stolen."""

    code = "token_in_query"
    remedy = "Send the token in `Authorization`, and revoke this one."


# --- certificates -------------------------------------------------------------------------------------------------


class BadCertificateError(UnauthenticatedError):
    """The client certificate does not say who is asking."""

    code = "certificate_malformed"
    remedy = "Get a certificate that this service takes: see docs/authentication.md."


class CertificateExpiredError(BadCertificateError):
    """The client certificate is no longer valid; it may have been when the connection began."""

    code = "certificate_expired"


class CertificateNotYetValidError(BadCertificateError):
    """The client certificate is not valid yet."""

    code = "certificate_not_yet_valid"


class CertificateRevokedError(BadCertificateError):
    """The client certificate is on a revocation list; it may have come there while the request was under way."""

    code = "certificate_revoked"
    remedy = "Get a new certificate, and find out why this one was revoked."


class CertificateUnverifiedError(UnavailableError):
    """The service's TLS files changed while the request was under way, so the client has to show who it is anew."""

    code = "certificate_unverified"
    remedy = "Send the same request again, on a new connection."


class CertificatePurposeError(BadCertificateError):
    """The certificate was not issued for client authentication."""

    code = "certificate_wrong_purpose"


class CertificateIdentityError(BadCertificateError):
    """The certificate names nobody, or several where only one may be named."""

    code = "certificate_without_identity"


class ForgedProxyHeaderError(UnauthenticatedError):
    """The headers of a load balancer came from somebody else: only one who wants to be another sends them."""

    code = "forged_proxy_header"
    remedy = "Do not send headers that belong to a load balancer."


class ProxyHeaderError(UnauthenticatedError):
    """The load balancer's headers contradict one another, or it does not verify what it passes on."""

    code = "proxy_header_malformed"


# --- tokens -------------------------------------------------------------------------------------------------------


class BadTokenError(UnauthenticatedError):
    """Not a JWT as this service takes them (RFC 6750, section 3.1: `invalid_token`)."""

    code = "token_malformed"
    remedy = "Get a new token from the issuer; if it is refused too, compare it with docs/authentication.md."


class TokenTooLargeError(BadTokenError):
    """Larger than any token that says who is asking."""

    code = "token_too_large"


class TokenHeaderError(BadTokenError):
    """Its header wants a key from somewhere else (`jku`, `jwk`, ...), an extension, or another kind of token."""

    code = "token_header_not_accepted"


class TokenAlgorithmError(BadTokenError):
    """Signed with an algorithm that is not among the configured ones, `none` included."""

    code = "token_algorithm_not_accepted"


class TokenKeyUnknownError(BadTokenError):
    """The issuer has published no key of this name for this algorithm; new keys are fetched at once."""

    code = "token_key_unknown"


class TokenSignatureError(BadTokenError):
    """The issuer did not sign this."""

    code = "token_signature_invalid"


class TokenClaimMissingError(BadTokenError):
    """One of `exp`, `iat`, `iss`, `aud` and `sub` is absent."""

    code = "token_claim_missing"


class TokenClaimError(BadTokenError):
    """A claim is not of the type it must have, or a time that none can be."""

    code = "token_claim_malformed"


class TokenIssuerError(BadTokenError):
    """Issued by somebody else."""

    code = "token_issuer_mismatch"


class TokenAudienceError(BadTokenError):
    """Meant for another service."""

    code = "token_audience_mismatch"


class TokenExpiredError(BadTokenError):
    """Its time is over."""

    code = "token_expired"


class TokenLifetimeError(BadTokenError):
    """Valid for longer, from `iat` to `exp`, than any token taken here: a stolen one would serve for as long."""

    code = "token_lifetime_too_long"
    remedy = "Have the issuer make tokens of a shorter life; `http.jwt.max_lifetime_s` says how long one may be."


class TokenNotYetValidError(BadTokenError):
    """Its time has not come, or it was issued in the future."""

    code = "token_not_yet_valid"


class TokenNotBoundError(BadTokenError):
    """It came with a client certificate and is not bound to it, or it is bound to one and came with another or none."""

    code = "token_certificate_mismatch"


class TokenKeysUnavailableError(UnavailableError):
    """The issuer's keys could not be fetched for too long: no token can be checked."""

    code = "token_keys_unavailable"
    remedy = "Send the same request again after `Retry-After`: the token issuer cannot be reached."
