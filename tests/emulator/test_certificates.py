"""The authority and the certificate of Azure's host names."""

import datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from emulator.certificates import HOSTS, LIFE, Certificates, ensure


def verify(files: Certificates, host: str) -> None:
    """By the strict rules of RFC 5280, as browsers and Python 3.13 apply them."""
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    server = x509.load_pem_x509_certificate(files.server.read_bytes())
    subject: x509.DNSName | x509.IPAddress = x509.DNSName(host)
    if host == "127.0.0.1":
        subject = x509.IPAddress(IPv4Address(host))
    verifier = PolicyBuilder().store(Store([authority])).build_server_verifier(subject)
    verifier.verify(server, [])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return ensure(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize("host", HOSTS)
def test_every_host_is_verified(files: Certificates, host: str) -> None:
    verify(files, host.replace("*", "anything"))


@pytest.mark.parametrize("host", ["example.com", "a.b.azurecr.io", "azure.com"])
def test_no_other_host_is(files: Certificates, host: str) -> None:
    with pytest.raises(VerificationError):
        verify(files, host)


def test_the_key_is_for_its_owner_only(files: Certificates) -> None:
    assert files.key.stat().st_mode & 0o777 == 0o600


def test_what_fits_is_kept_and_a_new_host_makes_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ensure(tmp_path).ca.read_bytes()
    assert ensure(tmp_path).ca.read_bytes() == before
    monkeypatch.setattr("emulator.certificates.HOSTS", ("localhost", "azurite"))
    verify(ensure(tmp_path), "azurite")
    assert ensure(tmp_path).ca.read_bytes() != before


def test_what_is_about_to_end_is_made_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ensure(tmp_path).ca.read_bytes()
    monkeypatch.setattr("emulator.certificates.RENEW", LIFE + datetime.timedelta(minutes=1))
    assert ensure(tmp_path).ca.read_bytes() != before
