"""Why a TLS handshake was refused: no answer carries these codes, but the audit log, the log and the metrics do."""

from signer.errors import SignerError


class HandshakeError(SignerError):
    """The handshake was broken off, for instance by a client that does not trust the service's certificate."""

    code = "tls_handshake_failed"
    remedy = "The audit record names OpenSSL's reason; if the client broke it off, give it the authority of our server."


class HandshakeTimeoutError(HandshakeError):
    """The client did not finish its handshake within 10 s."""

    code = "tls_handshake_timeout"
    retryable = True
    remedy = "Connect again; if that happens often, look at the network in between."


class TlsExpectedError(HandshakeError):
    """The client speaks plain HTTP, or something else that is not TLS."""

    code = "tls_expected"
    remedy = "Use https."


class TlsVersionError(HandshakeError):
    """The client offers no version of TLS from 1.2 on."""

    code = "tls_version_not_accepted"
    remedy = "Let the client speak TLS 1.2 or 1.3."


class TlsCipherError(HandshakeError):
    """The client offers no cipher suite with forward secrecy and authenticated encryption."""

    code = "tls_cipher_not_accepted"
    remedy = "Let the client offer TLS 1.3, or ECDHE with AES-GCM or ChaCha20-Poly1305."


class CertificateRejectedError(HandshakeError):
    """OpenSSL refuses the client certificate, for a reason that has no code of its own here."""

    code = "certificate_rejected"
    remedy = "The audit record names OpenSSL's reason; get a certificate as docs/authentication.md describes it."


class CertificateMissingError(CertificateRejectedError):
    """The client shows no certificate, where one is required."""

    code = "certificate_missing"
    remedy = "Configure the client with its certificate and key."


class AuthorityUnknownError(CertificateRejectedError):
    """The client certificate was issued by an authority that is not in `http.tls.client_ca`."""

    code = "certificate_authority_unknown"
    remedy = "Get a certificate from an authority that this service knows, and send those in between along."


class RevocationListMissingError(CertificateRejectedError):
    """No list in `http.tls.client_crl` is of the authority that issued a certificate of the client's chain."""

    code = "revocation_list_missing"
    remedy = "Whoever runs the service: put a list of each authority into `http.tls.client_crl`."


class RevocationListExpiredError(CertificateRejectedError):
    """A revocation list has run out, so nobody whom its authority vouched for can be judged."""

    code = "revocation_list_expired"
    retryable = True
    remedy = "Whoever runs the service: put a new list into `http.tls.client_crl`; it is read without a restart."
