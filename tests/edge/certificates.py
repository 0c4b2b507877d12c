"""Certificates of the tests: an authority, and a certificate of it for the edge and for each party. Made when first asked for."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


class Certificates:
    """PEM files in a folder: ca.pem, and NAME.pem with NAME.key for each name asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def made(self) -> Path:
        """The folder, with ca.pem in it."""
        if not (self.folder / "ca.pem").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._openssl("-x509", *_CURVE, "-subj", "/CN=Test authority", "-keyout", "ca.key", "-out", "ca.pem")
        return self.folder

    def issue(self, name: str, address: str, *, dns: str = "") -> tuple[Path, Path]:
        """Certificate and key of that common name, for an IP address, and with ``dns`` for that name."""
        folder = self.made()
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        if not certificate.exists():
            self._openssl(
                *("-x509", "-CA", "ca.pem", "-CAkey", "ca.key", *_CURVE, "-subj", f"/CN={name}"),
                *("-addext", f"subjectAltName=IP:{address}{f',DNS:{dns}' if dns else ''}"),
                *("-keyout", key.name, "-out", certificate.name),
            )
        return certificate, key

    def contexts(self, name: str, address: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """What a party listens and connects with. It trusts the authority and shows its own certificate."""
        certificate, key = self.issue(name, address)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (server, client):
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(self.folder / "ca.pem")
        return server, client

    def client(self) -> ssl.SSLContext:
        """What somebody without a certificate connects with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.made() / "ca.pem")
        return context

    def serve(self, site: dict[str, Any]) -> None:
        """Have the edge of that site listen over TLS too."""
        address = site["edge"]["listen"][0]["address"]
        certificate, key = self.issue("edge", address)
        site["edge"]["listen"].append({"transport": "tls", "address": address})
        site["edge"]["tls"] = {
            "certificate": str(certificate),
            "key": str(key),
            "ca": str(certificate.with_name("ca.pem")),
        }

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", "req", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=20)
