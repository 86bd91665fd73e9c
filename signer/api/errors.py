"""What can only go wrong over HTTP; the rest of the error tree is `signer.errors`."""

from signer.errors import InvalidInputError, SignerError, UnavailableError


class UnsupportedMediaTypeError(InvalidInputError):
    """The body is not declared as `application/json`, or it is compressed.

    The first also keeps out web pages: a browser sends that type to another origin only after asking, and gets a no.
    """

    code = "unsupported_media_type"
    remedy = "Send `Content-Type: application/json`, uncompressed."


class MisdirectedRequestError(InvalidInputError):
    """`Host` names somebody else: a web page whose name its owner points at 127.0.0.1 (DNS rebinding) sends that."""

    code = "misdirected_request"
    remedy = "Address the service by its own name."


class BodyTimeoutError(SignerError):
    """The body did not arrive in time; meanwhile it was one of the few unfinished ones that a caller may have."""

    code = "body_timeout"
    retryable = True
    remedy = "Send the same request again, faster."


class ClientGoneError(SignerError):
    """The client hung up before work on its request began: nobody would hear the answer."""

    code = "client_gone"
    retryable = True
    remedy = "Nobody sees it but the log: the client hung up."


class NotReadyError(UnavailableError):
    """The service cannot sign now, so a load balancer should send requests elsewhere."""

    code = "not_ready"
