"""The edge's certificate, for ``tandem check``: readable, a pair with its key, and good for some time."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tandem.probes import Failed
from tandem.settings import Tls

NOTICE = timedelta(days=14)
"""One that ends sooner is told."""
_T = TypeVar("_T")


def certificate(settings: Tls) -> str:
    """Whose it is and until when. Raises Failed."""
    chain = _read(settings.certificate, x509.load_pem_x509_certificates)
    key = _read(settings.key, lambda text: load_pem_private_key(text, None))
    _read(settings.ca, x509.load_pem_x509_certificates)
    ours, now = chain[0], datetime.now(UTC)
    begins, ends = ours.not_valid_before_utc, ours.not_valid_after_utc
    if ours.public_key() != key.public_key():
        raise Failed(f"{settings.key} is not the key of {settings.certificate}", "make them one pair")
    if now < begins:
        raise Failed(f"{settings.certificate} is good from {begins:%Y-%m-%d}", "check the clock")
    if ends - now < NOTICE:
        tense = "ended" if ends < now else "ends"
        raise Failed(f"{settings.certificate} {tense} on {ends:%Y-%m-%d}", "renew it, then: kamcmd tls.reload")
    return f"{ours.subject.rfc4514_string()}, until {ends:%Y-%m-%d}"


def _read(path: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", "correct edge.tls, or who may read the file") from error
    except (ValueError, TypeError) as error:
        raise Failed(f"{path} is no such PEM file: {error}", "expected PEM, a key not encrypted") from error
