"""A public key infrastructure for tests: authorities, certificates of every kind, and revocation lists."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DAY = timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def named(common_name: str) -> x509.Name:
    """A distinguished name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    return x509.DNSName(text)


@dataclass(frozen=True)
class Holder:
    """A certificate with its key, and the intermediates to send along."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> str:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def thumbprint(self) -> bytes:
        return self.certificate.fingerprint(hashes.SHA256())

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write certificate and key; give their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        chain = (self.certificate, *self.chain)
        certificate.write_bytes(b"".join(link.public_bytes(serialization.Encoding.PEM) for link in chain))
        key.touch(mode=0o600)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, key


class Authority:
    """A certificate authority: a root, or one below `parent`."""

    def __init__(self, name: str, parent: "Authority | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._parent = parent
        signer_key, issuer = (self.key, named(name)) if parent is None else (parent.key, parent.certificate.subject)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(issuer, named(name), self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - 10 * DAY)
            .not_valid_after(now + 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False)
        )
        self.certificate: x509.Certificate = builder.sign(signer_key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        common_name: str = "somebody",
        names: Sequence[x509.GeneralName] = (),
        *,
        starts: timedelta = -DAY,
        ends: timedelta = DAY,
        purpose: ObjectIdentifier | None = CLIENT,
    ) -> Holder:
        """Issue a certificate; `starts` and `ends` count from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self.certificate.subject, named(common_name), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        chain = (self.certificate,) if self._parent is not None else ()
        return Holder(builder.sign(self.key, hashes.SHA256()), key, chain)

    def crl(self, *revoked: Holder, updated: timedelta = -DAY, next_update: timedelta = DAY) -> bytes:
        """Revoke certificates."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, now + updated, now + next_update
        ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
        for holder in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(holder.certificate.serial_number, now - DAY).build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_certificate(authority: Authority) -> Holder:
    """A certificate for the service on this machine."""
    return authority.issue("signer", [dns("localhost"), x509.IPAddress(ip_address("127.0.0.1"))], purpose=SERVER)


def client_context(trusted: Authority, directory: Path, holder: Holder | None = None) -> ssl.SSLContext:
    """What a client connects with: whom it trusts, and what it shows."""
    context = ssl.create_default_context(cadata=trusted.pem.decode())
    if holder is not None:
        context.load_cert_chain(*holder.write(directory, f"client-{holder.certificate.serial_number:x}"))
    return context


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
