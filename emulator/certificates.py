"""The authority of the local Azure, and the certificate of its host names.

    files = ensure(folder)     # ca.pem, server.pem, server.key

The authority's key is in memory only: nobody can make another certificate of it. So both are made
new whenever one is missing, ends soon, or lacks a host; clients read ca.pem at each start.
"""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOSTS = (
    "management.azure.com",
    "login.microsoftonline.com",
    "ml.azure.com",
    "*.api.azureml.ms",
    "*.experiments.azureml.net",
    "*.eastus.inference.ml.azure.com",
    "*.blob.core.windows.net",
    "*.azurecr.io",
    "*.vault.azure.net",
    "*.openai.azure.com",
    "localhost",
    "127.0.0.1",
)
LIFE = datetime.timedelta(days=30)
RENEW = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files."""

    ca: Path
    server: Path
    key: Path


def ensure(folder: Path) -> Certificates:
    """The certificates in `folder`, for HOSTS; made where they do not fit."""
    files = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    if not _fits(files):
        folder.mkdir(parents=True, exist_ok=True)
        _make(files)
    return files


def _fits(files: Certificates) -> bool:
    if not (files.ca.is_file() and files.server.is_file() and files.key.is_file()):
        return False
    server = x509.load_pem_x509_certificate(files.server.read_bytes())
    held = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = server.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left > RENEW and {_name(name) for name in HOSTS} <= set(held)


def _make(files: Certificates) -> None:
    authority_key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("Homeport rehearsal, not Azure")
    authority = (
        _builder(subject, subject, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _builder(_subject("Homeport rehearsal"), subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in HOSTS]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(files.key, secret, 0o600)
    _write(files.ca, authority.public_bytes(pem), 0o644)
    _write(files.server, server.public_bytes(pem), 0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks of containers differ
        .not_valid_after(now + LIFE)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all: another process may be reading."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(b"")
    part.chmod(mode)
    part.write_bytes(data)
    part.replace(path)
