"""A certificate authority made for one run, and the certificates it issues: the one door to ``cryptography``.

No certificate of a run carries a common name. etcd takes the common name of a client's certificate for its user, and
its JSON gateway refuses every such client once authentication is on; names and addresses stand in the alternative
names only, where Python and Go look for them.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

VALID_DAYS = 30
"""How long the certificates of a run are good for: longer than any run, short enough to be worthless when found."""

_CLOCK_SKEW = datetime.timedelta(days=1)  # clocks of lab machines are off by hours, and by their time zone


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, PEM texts."""

    certificate: str
    key: str = field(repr=False)


class Unusable(ValueError):
    """A certificate or key that etcd or its clients would refuse; the message says why."""


class Authority:
    """A certificate authority for one run; its key lives in this process only."""

    def __init__(self, run: str) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        self._run = run
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"testbed run {run}", "certificate authority")
        builder = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
        )
        self._certificate = self._sign(builder)

    @property
    def certificate(self) -> str:
        """The authority's certificate, PEM."""
        return _pem(self._certificate)

    def issue_server(self, hosts: Sequence[str]) -> Issued:
        """Issue a certificate for a server that is reached under ``hosts`` (IP addresses and DNS names).

        It is good for a client too: etcd's JSON gateway shows its server's certificate when it calls that server.
        """
        from cryptography.x509.oid import ExtendedKeyUsageOID

        return self._issue("server", hosts, (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH))

    def issue_client(self, name: str) -> Issued:
        """Issue a certificate that lets its holder speak to the run's server; ``name`` is for people who read it."""
        from cryptography.x509.oid import ExtendedKeyUsageOID

        return self._issue(name, (), (ExtendedKeyUsageOID.CLIENT_AUTH,))

    def _issue(self, unit: str, hosts: Sequence[str], purposes: Sequence[x509.ObjectIdentifier]) -> Issued:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(f"testbed run {self._run}", unit), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Issued(_pem(self._sign(builder)), text.decode("ascii"))

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        from cryptography.hazmat.primitives import hashes

        return builder.sign(self._key, hashes.SHA256())


def check_authority(certificate: str) -> None:
    """Check that the PEM text holds certificates of authorities that are good today; raises `Unusable`."""
    for found in _load(certificate):
        _check_dates(found)


def check_client(certificate: str, key: str) -> None:
    """Check that a client's certificate and key, PEM texts, belong together and are such as the gateway takes.

    Raises `Unusable`.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import NameOID

    own = _load(certificate)[0]
    _check_dates(own)
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Unusable("the key is no PEM private key without a passphrase") from error
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise Unusable("the key does not belong to the certificate")
    if any(attribute.value for attribute in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)):
        raise Unusable(
            "the certificate has a common name, and etcd's JSON gateway refuses such clients;"
            " issue one with an organisation instead"
        )


def _load(certificates: str) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(certificates.encode())
    except ValueError as error:
        raise Unusable("the file holds no PEM certificate") from error


def _check_dates(certificate: x509.Certificate) -> None:
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_after_utc < now:
        raise Unusable(f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if certificate.not_valid_before_utc > now:
        raise Unusable(f"the certificate begins on {certificate.not_valid_before_utc:%Y-%m-%d}; check this clock")


def _name(organisation: str, unit: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    # X.520 bounds both at 64 characters
    parts = ((NameOID.ORGANIZATION_NAME, organisation), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([x509.NameAttribute(oid, value[:64]) for oid, value in parts])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
