"""A balancer's headers are believed from its own networks, byte by byte as it writes them."""

from ipaddress import ip_network
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from signer.api.auth_errors import ForgedProxyHeaderError, ProxyHeaderError
from signer.api.trusted_proxies import TrustedProxies
from signer.errors import UnauthenticatedError
from tests.pki import Authority, uri

ID = "spiffe://bank.example/settlement"
HOLDER = Authority("Root").issue("x", [uri(ID)])
LEAF = "x-amzn-mtls-clientcert-leaf"
PROXIES = TrustedProxies((ip_network("10.0.0.0/24"), ip_network("2001:db8::/64")))
ENCODED = quote(HOLDER.pem, safe="+=/")


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::7"])
def test_the_balancer_is_believed(peer: str) -> None:
    """Also where a dual-stack listener shows its IPv4 address as an IPv6 one."""
    certificate = PROXIES.certificate(Headers({LEAF: ENCODED}), peer)
    assert certificate is not None
    assert (certificate.caller, certificate.thumbprint) == (ID, HOLDER.thumbprint)


@pytest.mark.parametrize("peer", ["10.0.1.1", "::ffff:10.0.1.1", "2001:db9::7", "unknown", "", "10.0.0.1, 1.1.1.1"])
def test_nobody_else_is(peer: str) -> None:
    """Whatever the address looks like."""
    with pytest.raises(ForgedProxyHeaderError):
        PROXIES.certificate(Headers({LEAF: ENCODED}), peer)


def test_without_networks_nobody_is_a_balancer() -> None:
    """As where the settings name none."""
    with pytest.raises(ForgedProxyHeaderError):
        TrustedProxies(()).certificate(Headers({LEAF: ENCODED}), "127.0.0.1")


def test_no_header_is_no_certificate() -> None:
    """Not everybody behind the balancer has one."""
    assert PROXIES.certificate(Headers({"x-amzn-trace-id": "Root=1"}), "10.0.0.1") is None
    assert PROXIES.certificate(Headers({}), "198.51.100.7") is None


def test_plus_signs_stay() -> None:
    """Base64 is full of them, and the balancer leaves them as they are; in a form they would be blanks."""
    holder = next(made for made in iter(lambda: Authority("Root").issue("x", [uri(ID)]), None) if "+" in made.pem)
    for encoded in (quote(holder.pem, safe="+=/"), quote(holder.pem)):
        certificate = PROXIES.certificate(Headers({LEAF: encoded}), "10.0.0.1")
        assert certificate is not None
        assert certificate.thumbprint == holder.thumbprint


def test_the_number_must_be_the_leafs() -> None:
    """In hexadecimal, as the balancer writes it."""
    number = f"{HOLDER.certificate.serial_number:X}"
    name = "x-amzn-mtls-clientcert-serial-number"
    assert PROXIES.certificate(Headers({LEAF: ENCODED, name: number}), "10.0.0.1") is not None
    for wrong in (number[:-1], "", "canary"):
        with pytest.raises(ProxyHeaderError):
            PROXIES.certificate(Headers({LEAF: ENCODED, name: wrong}), "10.0.0.1")


def test_a_leaf_too_large_is_not_read() -> None:
    """No certificate is that large."""
    with pytest.raises(ProxyHeaderError, match="too large"):
        PROXIES.certificate(Headers({LEAF: "A" * 60_000}), "10.0.0.1")


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_anything_else_is_refused(value: str) -> None:
    """Nothing but our own errors is ever raised."""
    with pytest.raises(UnauthenticatedError):
        PROXIES.certificate(Headers(raw=[(LEAF.encode(), value.encode("latin-1"))]), "10.0.0.1")
