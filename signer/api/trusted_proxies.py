"""Client certificates that an Application Load Balancer verified (mutual TLS, `verify` mode) and names in headers.

AWS, "Mutual authentication with TLS in Application Load Balancer": the balancer overwrites these headers in each
request that passes it. In `passthrough` mode it verifies nothing and sends `X-Amzn-Mtls-Clientcert` instead.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers

from signer.api.auth_errors import ForgedProxyHeaderError, MultipleCredentialsError, ProxyHeaderError
from signer.api.certificates import MAX_PEM_BYTES, ClientCertificate, read_certificate
from signer.http_settings import Network

PREFIX: Final = "x-amzn-mtls-clientcert"
_LEAF: Final = f"{PREFIX}-leaf"
_SERIAL: Final = f"{PREFIX}-serial-number"
_UNVERIFIED: Final = PREFIX


class TrustedProxies:
    """Believes the headers of load balancers in `networks`, and of nobody else."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks

    def includes(self, peer: str) -> bool:
        """Tell whether the other end of the connection is such a load balancer."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)

    def certificate(self, headers: Headers, peer: str) -> ClientCertificate | None:
        """Give the client certificate that the balancer verified, or None where it passed none on.

        Raises `ForgedProxyHeaderError` where the headers come from anywhere else, `ProxyHeaderError`,
        `MultipleCredentialsError` and a `BadCertificateError`.
        """
        # Every spelling counts: what differs from the known names only a little is no accident.
        names = [name for name in headers if name.replace("_", "-").startswith(PREFIX)]
        if not names:
            return None
        if not self.includes(peer):
            msg = "the headers of a load balancer are believed from its own networks only"
            raise ForgedProxyHeaderError(msg)
        if len(names) != len(set(names)):
            msg = "a header that names the client certificate stands twice"
            raise MultipleCredentialsError(msg)
        if _UNVERIFIED in names or _LEAF not in names:
            msg = "the load balancer does not verify client certificates: set its mutual TLS to verify"
            raise ProxyHeaderError(msg)
        return _read(headers)


def _read(headers: Headers) -> ClientCertificate:
    leaf, serial = headers[_LEAF], headers.get(_SERIAL)
    if len(leaf) > 3 * MAX_PEM_BYTES:
        msg = "the client certificate is too large"
        raise ProxyHeaderError(msg)
    # Not `unquote_plus`: the balancer leaves the plus signs of base64 as they are.
    certificate = read_certificate(unquote(leaf))
    if serial is not None and _as_number(serial) != certificate.serial:
        msg = "the load balancer's headers name two certificates"
        raise ProxyHeaderError(msg)
    return certificate


def _as_number(serial: str) -> int | None:
    try:
        return int(serial, 16)
    except ValueError:
        return None
