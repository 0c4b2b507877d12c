"""TLS: who may shake hands, certificates taken anew without a restart, and many connections with nothing left behind."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.edge.certificates import Certificates
from tests.edge.endpoints import Calling
from tests.edge.world import DID, Edge, MakeEdge

CHURN_S = float(os.environ.get("TANDEM_TLS_CHURN_SECONDS", "3"))
"""How long connections come and go."""
CHILDREN = 4
"""Enough for readers of TLS to get into each other's way."""


@dataclass
class Secure:
    edge: Edge
    certificates: Certificates

    @property
    def at(self) -> tuple[str, int]:
        return self.edge.at[0], 5061

    def client(self, name: str = "") -> ssl.SSLContext:
        """What the party of that name connects with; without a name one that shows no certificate."""
        if name:
            return self.certificates.contexts(name, self.edge.address(21))[1]
        return self.certificates.client()

    @contextlib.contextmanager
    def connection(self, context: ssl.SSLContext, host: int = 21) -> Iterator[ssl.SSLSocket]:
        source = (self.edge.address(host), 0)
        with socket.create_connection(self.at, timeout=5, source_address=source) as plain:
            with context.wrap_socket(plain, server_hostname=self.edge.at[0]) as secure:
                yield secure

    def options(self, context: ssl.SSLContext) -> bytes:
        """The first bytes of the answer to OPTIONS."""
        with self.connection(context) as connection:
            connection.sendall(self.request("OPTIONS"))
            return connection.recv(65536)

    def request(self, method: str, **parts: Any) -> bytes:
        return Calling(self.edge.carrier, self.at, f"sip:{DID}@{self.at[0]}", "+12025550147", "tls").compose(
            method, **parts
        )

    def serial(self) -> int:
        """Of the certificate that the edge shows."""
        with self.connection(self.client()) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


@pytest.fixture
def secure(make_edge: MakeEdge, tmp_path: Path) -> Secure:
    certificates = Certificates(tmp_path / "tls")

    def change(site: dict[str, Any]) -> None:
        certificates.serve(site)
        site["edge"]["children"] = CHILDREN

    return Secure(make_edge(change), certificates)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_carrier_without_a_certificate_is_served(secure: Secure, version: ssl.TLSVersion):
    context = secure.client()
    context.minimum_version = context.maximum_version = version
    assert secure.options(context).startswith(b"SIP/2.0 200 ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_before_1_2_is_refused(secure: Secure):
    secure.edge.expected_errors.append("tls|TLS")
    context = secure.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secure.options(context)


def test_certificate_of_an_unknown_authority_is_as_good_as_none(secure: Secure, tmp_path: Path):
    """A carrier is known by its address; the certificate that it shows besides may come from anywhere."""
    stranger = Certificates(tmp_path / "other")
    certificate, key = stranger.issue("branch", secure.edge.address(21))
    context = secure.client()
    context.load_cert_chain(certificate, key)
    assert secure.options(context).startswith(b"SIP/2.0 200 ")


def known_by_certificate(make_edge: MakeEdge, certificates: Certificates) -> Edge:
    def change(site: dict[str, Any]) -> None:
        certificates.serve(site)
        site["trunks"]["branch"] = {"kind": "pbx", "certificate": "branch"}

    return make_edge(change)


def first_answer(edge: Edge, certificates: tuple[Path, Path], authority: Path) -> bytes:
    """To an INVITE for 911 from an unknown address with that certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    context.load_cert_chain(*certificates)
    branch = Calling(edge.party(51), (edge.at[0], 5061), f"sip:911@{edge.at[0]}", "+12025550101", "tls")
    with (
        socket.create_connection(branch.edge, timeout=5, source_address=(edge.address(51), 0)) as plain,
        context.wrap_socket(plain, server_hostname=edge.at[0]) as secure,
    ):
        secure.sendall(branch.compose("INVITE"))
        return secure.recv(65536)


def test_name_in_a_certificate_of_an_unknown_authority_is_not_believed(make_edge: MakeEdge, tmp_path: Path):
    certificates, others = Certificates(tmp_path / "tls"), Certificates(tmp_path / "other")
    edge = known_by_certificate(make_edge, certificates)
    forged = others.issue("branch", edge.address(51))
    assert first_answer(edge, forged, certificates.folder / "ca.pem").startswith(b"SIP/2.0 403 ")
    genuine = certificates.issue("branch", edge.address(51))
    assert first_answer(edge, genuine, certificates.folder / "ca.pem").startswith(b"SIP/2.0 100 ")


def test_dns_name_in_a_certificate_counts_before_its_common_name(make_edge: MakeEdge, tmp_path: Path):
    certificates = Certificates(tmp_path / "tls")
    edge = known_by_certificate(make_edge, certificates)
    named = certificates.issue("PBX of the branch", edge.address(51), dns="branch")
    assert first_answer(edge, named, certificates.folder / "ca.pem").startswith(b"SIP/2.0 100 ")


def test_gateway_with_a_certificate_of_an_unknown_authority_is_not_called(make_edge: MakeEdge, tmp_path: Path):
    certificates, others = Certificates(tmp_path / "tls"), Certificates(tmp_path / "other")

    def change(site: dict[str, Any]) -> None:
        certificates.serve(site)
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["trunks"]["pbx"]["gateways"] = [f"sip:{net}.31:5061;transport=tls", f"sip:{net}.31:5060"]

    edge = make_edge(change)
    edge.expected_errors.append("tls|TLS|certificate|tcp|connection")
    context, _ = others.contexts("pbx", edge.address(31))
    with (
        socket.create_server((edge.address(31), 5061)) as listener,
        context.wrap_socket(listener, server_side=True) as false,
    ):
        thread = threading.Thread(target=_accept, args=(false,), daemon=True)
        thread.start()
        calling = edge.from_carrier("+12025550101")
        assert edge.pbx.request("INVITE", calling.call_id).over == "udp"
    thread.join(2)


def _accept(listener: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


def test_certificate_is_taken_anew_without_a_restart(secure: Secure):
    before = secure.serial()
    with secure.connection(secure.client()) as held:
        for suffix in ("pem", "key"):
            (secure.certificates.folder / f"edge.{suffix}").unlink()
        secure.certificates.issue("edge", secure.edge.at[0])
        assert secure.serial() == before
        secure.edge.rpc("tls.reload")
        secure.edge.until(lambda: secure.serial() != before, "the new certificate")
        held.sendall(secure.request("OPTIONS"))
        assert held.recv(65536).startswith(b"SIP/2.0 200 ")


def test_reload_of_a_broken_certificate_keeps_the_old_one(secure: Secure):
    secure.edge.expected_errors.append("tls|TLS")
    before = secure.serial()
    certificate = secure.certificates.folder / "edge.pem"
    shutil.copy(certificate, certificate.with_suffix(".kept"))
    certificate.write_text("nothing", encoding="utf-8")
    with contextlib.suppress(OSError, KeyError):
        secure.edge.rpc("tls.reload")
    assert secure.serial() == before


def test_as_many_readers_of_tls_as_its_kamailio_bears(secure: Secure):
    """What tls_threads_mode is in effect Kamailio says nowhere."""
    version = re.findall(r"kamailio (\d+)\.(\d+)\.(\d+)", str(secure.edge.rpc("core.version")))
    bears_many = tuple(map(int, version[0])) >= (6, 0, 0)
    assert secure.edge.rpc("core.tcp_info")["readers"] == (CHILDREN if bears_many else 1)
    main = (secure.edge.folder / "site/kamailio/kamailio.cfg").read_text(encoding="utf-8")
    assert re.findall(
        r"^#!ifdef KAMAILIO_6\n(?:.*\n)*?tls_threads_mode=(\d)\n(?:.*\n)*?#!else", main, re.MULTILINE
    ) == ["2"]


def test_connections_that_come_and_go_leave_nothing_behind(secure: Secure):
    """With OpenSSL 3 and more readers than its Kamailio bears, this ends with BUG lines and a dead server (kamailio#3791)."""
    made, failed = [0] * 4, []
    contexts = [secure.client("carrier" if number % 2 else "") for number in range(len(made))]

    def churn(number: int) -> None:
        while time.monotonic() < ends:
            try:
                assert secure.options(contexts[number]).startswith(b"SIP/2.0 200 ")
            except (OSError, AssertionError) as error:
                failed.append(error)
                return
            made[number] += 1

    ends = time.monotonic() + CHURN_S
    threads = [threading.Thread(target=churn, args=(number,)) for number in range(len(made))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(made)} connections in {CHURN_S:.0f} s")
    assert not failed
    assert min(made) > 5
    assert "BUG" not in secure.edge.log
    assert secure.edge.process is not None and secure.edge.process.poll() is None
    secure.edge.arrival(secure.edge.from_carrier())
