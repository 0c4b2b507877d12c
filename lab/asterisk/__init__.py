"""A PBX that nobody here wrote: Asterisk 22 of Debian sid, in a tree of its own (see ``lab/tree.sh``), run by chroot."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from lab.process import Process

TREE = Path(os.environ.get("TANDEM_ASTERISK_TREE", "/var/lib/tandem-sid"))
TEMPLATES = Path(__file__).parent
_PROGRAM = "usr/sbin/asterisk"


def missing() -> str | None:
    """Why there is no Asterisk to be had; None where there is."""
    if not (TREE / _PROGRAM).exists():
        return f"no Asterisk in {TREE}; make the tree with: lab/tree.sh sid {TREE} asterisk"
    return None if os.geteuid() == 0 else "only root can chroot into the tree that has Asterisk"


@dataclass(frozen=True)
class Tls:
    """PEM of Asterisk's side."""

    certificate: bytes
    key: bytes
    authority: bytes


def configuration(
    address: str,
    edge: tuple[str, int],
    phones: tuple[str, int],
    folder: Path,
    *,
    transfers: Mapping[str, str] | None = None,
    tls: bool,
) -> dict[str, str]:
    """Asterisk's files by name. ``folder`` is where they lie, and with ``tls`` its certificate, as Asterisk sees it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {
        "address": address,
        "edge": edge,
        "phones": phones,
        "folder": folder,
        "transfers": transfers or {},
        "tls": tls,
    }
    return {
        template.name.removesuffix(".j2"): environment.get_template(template.name).render(values)
        for template in TEMPLATES.glob("*.j2")
    }


@dataclass
class Asterisk:
    """One Asterisk at an address of its own. ``transfers`` are extensions that send REFER, each with its target URI."""

    address: str
    edge: tuple[str, int]
    phones: tuple[str, int]
    log: Path
    transfers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-asterisk-", dir=TREE / "tmp"))
        self._inside = Path("/") / self.folder.relative_to(TREE)
        self.process = Process(
            "asterisk", ["chroot", str(TREE), f"/{_PROGRAM}", "-f", "-C", f"{self._inside}/asterisk.conf"], self.log
        )

    async def start(self) -> None:
        """Write its configuration and start it; it serves when it answers OPTIONS. Raises OSError."""
        files = configuration(
            self.address, self.edge, self.phones, self._inside, transfers=self.transfers, tls=self.tls is not None
        )
        for name, text in files.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        if self.tls is not None:
            for name, content in (("certificate", self.tls.certificate), ("key", self.tls.key)):
                (self.folder / f"{name}.pem").write_bytes(content)
            (self.folder / "authority.pem").write_bytes(self.tls.authority)
        await self.process.start()

    def ask(self, command: str) -> str:
        """One command of its console; its output."""
        run = subprocess.run(
            ["chroot", str(TREE), f"/{_PROGRAM}", "-C", f"{self._inside}/asterisk.conf", "-rx", command],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return run.stdout

    def serves(self) -> bool:
        return "fully booted" in self.ask("core waitfullybooted")

    def channels(self) -> int:
        """Channels that are up."""
        return next(
            (int(line.split()[0]) for line in self.ask("core show channels").splitlines() if "active ch" in line), 0
        )

    async def stop(self) -> None:
        await self.process.stop(3.0)
        shutil.rmtree(self.folder, ignore_errors=True)
