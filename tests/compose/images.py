"""Images for a machine that can pull none, under the names that docker-compose.yml and the Dockerfiles are given.

Debian 13 by debootstrap, PostgreSQL from its packages, and a switch: the lab's, or the machine's own FreeSWITCH.
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from lab.site import ROOT
from lab.switches import FreeSwitchInstall

BASE = "debian:trixie-slim"
TANDEM = "tandem-test:latest"
EDGE = "tandem-test-edge:latest"
POSTGRES = "tandem-test-postgres:latest"
LAB_SWITCH = "tandem-test-lab-switch:latest"
FREESWITCH = "tandem-test-freeswitch:latest"

HERE = Path(__file__).parent
TRUST = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
SURROUNDINGS = re.compile(r"PIP_\w+|SSL_CERT_\w+|(https?|no)_proxy", re.IGNORECASE)
FETCHING = re.compile(r"Acquire::(http|https|ftp|Check|Retries|AllowInsecure)", re.IGNORECASE)
"""How this machine reaches its package registries; an image that is built on it needs the same."""


def import_base(client: docker.DockerClient, work: Path) -> None:
    """BASE, made by debootstrap (about 20 s of work), unless this machine has it."""
    try:
        client.images.get(BASE)
        return
    except ImageNotFound:
        pass
    tree = work / "trixie"
    mirrors = _said("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Component: main").split()
    suite = BASE.partition(":")[2].removesuffix("-slim")
    _run("debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(tree), *mirrors[:1])
    for path in filter(os.path.exists, TRUST):
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    fetching = [line for line in _said("apt-config", "dump").splitlines() if FETCHING.match(line)]
    (tree / "etc/apt/apt.conf.d/90fetching").write_text("\n".join([*fetching, ""]), encoding="utf-8")
    for package in (tree / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    _run("tar", "-C", str(tree), "-cf", str(work / "trixie.tar"), ".")
    changes = [f"ENV {name}={value}" for name, value in os.environ.items() if SURROUNDINGS.fullmatch(name)]
    _import(client, work / "trixie.tar", BASE, changes)
    shutil.rmtree(tree)


def build_postgres(client: docker.DockerClient) -> None:
    _build(client, HERE / "postgres", POSTGRES, BASE=BASE)


def build_lab_switch(client: docker.DockerClient, work: Path) -> None:
    """On TANDEM, with the locked versions of the libraries that the lab's switch needs besides."""
    context = work / "lab-switch"
    shutil.copytree(HERE / "switch", context)
    shutil.copytree(ROOT / "lab", context / "lab", ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
    lock = (ROOT / "requirements.lock").read_text()
    locked = re.findall(r"^(?:g722|sipmessage|soxr)==.*?(?=^\S)", lock, re.MULTILINE | re.DOTALL)
    assert len(locked) == 3
    (context / "needed.txt").write_text("".join(locked))
    _build(client, context, LAB_SWITCH, TANDEM=TANDEM)


def import_freeswitch(client: docker.DockerClient, install: FreeSwitchInstall, work: Path) -> None:
    """The machine's own FreeSWITCH: program, modules, what the compose file runs beside them, and all their libraries."""
    modules = sorted(install.modules.glob("*.so"))
    programs = [install.program, *(Path(str(shutil.which(name))) for name in ("sh", "bash", "mkdir", "sed", "tail"))]
    files = {*programs, *modules, *(Path(f"/etc/{name}") for name in ("passwd", "group", "nsswitch.conf"))}
    for file in [*programs, *modules]:
        files |= {Path(word) for word in _said("ldd", str(file)).split() if word.startswith("/")}
    archive = work / "freeswitch.tar"
    with tarfile.open(archive, mode="w") as tar:
        for link in filter(os.path.islink, ("/bin", "/lib", "/lib64")):
            tar.add(link)
        for file in sorted(files):
            tar.add(file.resolve(), arcname=str(file.parent.resolve() / file.name), recursive=False)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary, io.BytesIO())
    path = ":".join(dict.fromkeys(str(program.parent) for program in programs))
    # The image has no cache of the loader's.
    libraries = ":".join(sorted({str(file.parent) for file in files if ".so" in file.suffixes}))
    _import(client, archive, FREESWITCH, [f"ENV PATH={path}", f"ENV LD_LIBRARY_PATH={libraries}"])


def _build(client: docker.DockerClient, context: Path, tag: str, **arguments: str) -> None:
    """With the machine's own network, so that its way to the registries serves."""
    client.images.build(path=str(context), tag=tag, buildargs=arguments, network_mode="host", rm=True, forcerm=True)


def _import(client: docker.DockerClient, archive: Path, name: str, changes: list[str]) -> None:
    repository, tag = name.split(":")
    client.api.import_image(src=str(archive), repository=repository, tag=tag, changes=changes)
    client.images.get(name)
    archive.unlink()


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}: {(done.stderr or done.stdout)[-2000:]}"
