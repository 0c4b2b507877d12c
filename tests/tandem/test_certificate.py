"""What `tandem check` says of the edge's certificate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from tandem.certificate import certificate
from tandem.probes import Failed
from tandem.settings import Tls


def made(folder: Path, *, days: float = 90, starts: float = -1, password: bytes | None = None) -> Tls:
    """A certificate that names itself its authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    (folder / "edge.pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "edge.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return Tls(certificate=folder / "edge.pem", key=folder / "edge.key", ca=folder / "edge.pem")


def test_good_certificate_says_whose_it_is_and_until_when(tmp_path: Path):
    assert certificate(made(tmp_path)).startswith("CN=edge.example, until 2")


@pytest.mark.parametrize(
    ("days", "starts", "why"), [(13, -1, "ends on"), (-1, -2, "ended on"), (90, 2, "is good from")]
)
def test_certificate_out_of_time_is_told(tmp_path: Path, days: float, starts: float, why: str):
    with pytest.raises(Failed, match=why):
        certificate(made(tmp_path, days=days, starts=starts))


def test_key_of_another_certificate_is_told(tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = made(tmp_path / "other")
    with pytest.raises(Failed, match=r"edge\.key is not the key of"):
        certificate(made(tmp_path).model_copy(update={"key": other.key}))


@pytest.mark.parametrize("part", ["certificate", "key", "ca"])
def test_file_that_is_missing_or_no_pem_is_named(tmp_path: Path, part: str):
    files = made(tmp_path).model_copy(update={part: tmp_path / "mine"})
    with pytest.raises(Failed, match="mine: No such file or directory"):
        certificate(files)
    (tmp_path / "mine").write_text("nothing")
    with pytest.raises(Failed, match="mine is no such PEM file"):
        certificate(files)


def test_encrypted_key_is_told(tmp_path: Path):
    with pytest.raises(Failed, match=r"edge\.key is no such PEM file") as told:
        certificate(made(tmp_path, password=b"secret"))
    assert "not encrypted" in told.value.advice
