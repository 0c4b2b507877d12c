"""The images, made once a session, and the composed world: skipped, with the reason, where this machine cannot run it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from lab.site import ROOT
from lab.switches import NoFreeSwitch, SwitchKind, find_freeswitch
from tests.compose import images


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    for tool in ("docker-compose", "debootstrap"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root can run debootstrap")
    try:
        client = docker.from_env(timeout=600)
    except DockerException as error:
        pytest.skip(f"no Docker daemon: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def our_images(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Built as an operator builds them."""
    work = tmp_path_factory.mktemp("images")
    images.import_base(client, work)
    images.build_postgres(client)
    environment = work / "env"
    secrets = "POSTGRES_PASSWORD=x\nTANDEM_EVENT_SOCKET_PASSWORD=x\n"
    environment.write_text(
        f"{secrets}TANDEM_ENV_FILE={environment}\nTANDEM_IMAGE={images.TANDEM}\nTANDEM_EDGE_IMAGE={images.EDGE}\n"
    )
    command = ["docker-compose", "--env-file", str(environment), "build"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="session", params=list(SwitchKind), ids=lambda kind: str(kind))
def switch_image(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    our_images: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    work: Path = tmp_path_factory.mktemp("switch")
    if request.param is SwitchKind.LAB:
        images.build_lab_switch(client, work)
        return images.LAB_SWITCH
    try:
        images.import_freeswitch(client, find_freeswitch(), work)
    except NoFreeSwitch as error:
        pytest.skip(str(error))
    return images.FREESWITCH
