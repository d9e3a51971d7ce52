"""The certificates of a run."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testbed.etcd.certificates import Authority, Unusable, check_authority, check_client


def test_no_certificate_has_a_common_name() -> None:
    """A server would take it for a user, and its gateway refuses it."""
    authority = Authority("run")
    for text in (
        authority.certificate,
        authority.issue_server(["h"]).certificate,
        authority.issue_client("n").certificate,
    ):
        subject = x509.load_pem_x509_certificate(text.encode()).subject
        assert subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []
        assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) != []


def test_holds_for_clocks_that_are_off_and_for_no_more_than_a_month() -> None:
    """Valid since yesterday, because lab clocks differ by hours, and for thirty days."""
    own = x509.load_pem_x509_certificate(Authority("run").issue_client("n").certificate.encode())
    now = datetime.datetime.now(datetime.UTC)
    assert own.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert now + datetime.timedelta(days=29) < own.not_valid_after_utc < now + datetime.timedelta(days=31)


def test_openssl_finds_each_fit_for_its_purpose_only(tmp_path: Path) -> None:
    """An independent judge: a client's is no server's, a server's is both, and neither signs others."""
    authority = Authority("run")
    (tmp_path / "ca").write_text(authority.certificate)
    (tmp_path / "server").write_text(authority.issue_server(["127.0.0.1", "host"]).certificate)
    (tmp_path / "client").write_text(authority.issue_client("n").certificate)

    def judge(name: str, *options: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca", *options, tmp_path / name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert judge("server", "-purpose", "sslserver", "-verify_ip", "127.0.0.1")
    assert judge("server", "-purpose", "sslserver", "-verify_hostname", "host")
    assert judge("server", "-purpose", "sslclient")
    assert judge("client", "-purpose", "sslclient")
    assert not judge("client", "-purpose", "sslserver")
    assert not judge("server", "-verify_ip", "127.0.0.2")


def test_a_long_run_name_is_cut_not_refused() -> None:
    """X.520 bounds names at 64 characters; a run's may be longer."""
    own = x509.load_pem_x509_certificate(Authority("r" * 100).issue_client("n" * 100).certificate.encode())
    usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_keys_are_not_shown() -> None:
    """A key does not get into a log by way of `repr`."""
    assert "PRIVATE" not in repr(Authority("run").issue_client("n"))


def test_what_a_run_makes_passes_its_own_checks() -> None:
    """What is asked of a lab's certificates holds for those of a run."""
    authority = Authority("run")
    issued = authority.issue_client("n")
    check_authority(authority.certificate)
    check_client(issued.certificate, issued.key)


@pytest.mark.parametrize("key", ["", "no key", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_told(key: str) -> None:
    """Whatever stands in the key's file, the message says what is wrong with it."""
    with pytest.raises(Unusable, match="key"):
        check_client(Authority("run").issue_client("n").certificate, key)


def test_cryptography_is_not_imported_before_it_is_needed() -> None:
    """Runs on this machine, and the command's help, do not pay for it."""
    program = "import sys, testbed.etcd.server, testbed.etcd.access; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
