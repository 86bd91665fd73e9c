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


class NotFoundError(InvalidInputError):
    """Nothing is served under this path."""

    code = "not_found"
    remedy = "Compare the path with `/openapi.json`; a slash at its end makes it another one."


class MethodNotAllowedError(InvalidInputError):
    """The path is served, but not by this method."""

    code = "method_not_allowed"
    remedy = "Use a method that `Allow` names."


# --- what never becomes a request, and so has no `request_id` -----------------------------------------------------


class MalformedRequestError(InvalidInputError):
    """What came over the connection is not an HTTP/1.1 request, or asks for a tunnel."""

    code = "malformed_request"
    remedy = "Speak HTTP/1.1; a length that disagrees with the body makes the next request look like this, too."


class HeadersTooLargeError(InvalidInputError):
    """Request line and headers together are beyond 64 KiB."""

    code = "headers_too_large"
    remedy = "Send fewer headers, or shorter ones."


class HeadTimeoutError(SignerError):
    """Request line and headers did not arrive within 10 s."""

    code = "head_timeout"
    retryable = True
    remedy = "Send the same request again, faster, on a new connection."


class TooManyConnectionsError(UnavailableError):
    """As many connections are open as the settings allow."""

    code = "too_many_connections"
    remedy = "Connect again after `Retry-After`. Keep few connections, and use them again."
