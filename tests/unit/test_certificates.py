"""A client certificate names one caller, in one of three forms that cannot be mistaken for one another."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from signer.api.auth_errors import (
    BadCertificateError,
    CertificateExpiredError,
    CertificateIdentityError,
    CertificateNotYetValidError,
    CertificatePurposeError,
)
from signer.api.certificates import read_certificate
from tests.pki import DAY, Authority, dns, uri

ROOT = Authority("Root")
ID = "spiffe://bank.example/settlement"


@pytest.mark.parametrize(
    ("common_name", "names", "caller"),
    [
        ("x", [uri(ID)], ID),
        ("x", [dns("a.bank.example"), uri(ID)], ID),
        ("x", [uri("spiffe://bank.example")], "spiffe://bank.example"),
        ("x", [dns("A.Bank.Example")], "dns:a.bank.example"),
        ("x", [dns("a.bank.example"), dns("b.bank.example")], "dns:a.bank.example"),
        ("x", [uri("https://bank.example"), dns("a.bank.example")], "dns:a.bank.example"),
        ("settlement", [], "subject:CN=settlement"),
        ("settlement", [uri("https://bank.example")], "subject:CN=settlement"),
        (ID, [], f"subject:CN={ID}"),
        ("dns:a.bank.example", [], "subject:CN=dns:a.bank.example"),
        ("http:loopback", [], "subject:CN=http:loopback"),
        ("a,O=Bank", [], "subject:CN=a\\,O=Bank"),
    ],
)
def test_it_names_its_caller(common_name: str, names: list[x509.GeneralName], caller: str) -> None:
    """SPIFFE ID, then DNS name, then subject; what a subject says stays behind its prefix."""
    assert read_certificate(ROOT.issue(common_name, names).pem).caller == caller


@pytest.mark.parametrize(
    ("common_name", "names"),
    [
        ("x", [uri(ID), uri("spiffe://bank.example/other")]),
        ("x", [uri(ID), uri("https://bank.example/")]),
        ("x", [uri("spiffe://bank.example/a/../settlement")]),
        ("x", [uri("spiffe://bank.example/.")]),
        ("x", [uri("spiffe://bank.example/settlement/")]),
        ("x", [uri("spiffe://bank.example//settlement")]),
        ("x", [uri("spiffe://Bank.example/settlement")]),
        ("x", [uri("SPIFFE://bank.example/settlement")]),
        ("x", [uri("spiffe://bank.example:8443/settlement")]),
        ("x", [uri("spiffe://bank.example/settle%6dent")]),
        ("x", [uri("spiffe://bank.example/settlement?x")]),
        ("x", [uri("spiffe:///settlement")]),
        ("x", [uri("spiffe://" + "b" * 2050)]),
        ("x", [dns("*.bank.example")]),
        ("x", [dns("a bank")]),
        ("x", [dns("a.bank.example\n")]),
        ("", [uri("https://bank.example")]),
        ("two\nlines", []),
    ],
)
def test_who_cannot_be_named_is_refused(common_name: str, names: list[x509.GeneralName]) -> None:
    """No fall-back from a bad SPIFFE ID to something weaker."""
    with pytest.raises(CertificateIdentityError):
        read_certificate(ROOT.issue(common_name, names).pem)


@pytest.mark.parametrize("purpose", [None, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
def test_it_may_leave_its_purpose_open(purpose: ObjectIdentifier | None) -> None:
    """RFC 5280, section 4.2.1.12: without the extension it is for everything."""
    assert read_certificate(ROOT.issue(purpose=purpose).pem).caller == "subject:CN=somebody"


def test_it_must_be_for_clients() -> None:
    """The private key of a server is kept for other hands."""
    with pytest.raises(CertificatePurposeError):
        read_certificate(ROOT.issue(purpose=ExtendedKeyUsageOID.SERVER_AUTH).pem)


def test_its_dates_are_kept() -> None:
    """Neither before nor after."""
    certificate = read_certificate(ROOT.issue().pem)
    now = datetime.now(UTC)
    certificate.check_dates(now)
    with pytest.raises(CertificateExpiredError):
        certificate.check_dates(now + DAY + timedelta(seconds=2))
    with pytest.raises(CertificateNotYetValidError):
        certificate.check_dates(now - DAY - timedelta(seconds=2))


@given(st.text() | st.binary().map(lambda data: "-----BEGIN CERTIFICATE-----\n" + data.hex() + "\n"))
def test_what_is_no_certificate_is_refused(text: str) -> None:
    """Nothing else is ever raised."""
    with pytest.raises(BadCertificateError):
        read_certificate(text)
