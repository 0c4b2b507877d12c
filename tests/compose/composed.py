"""A site that runs in containers, brought up and taken down with docker-compose as an operator does it."""

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import docker
import yaml
from docker.models.containers import Container

from lab.site import ROOT, Site
from lab.world import World
from tests.compose import images

DATABASE_HOST = 41
"""Last octet."""
DATABASE_PASSWORD = "compose-database"
READY_S = 90.0
SERVICES = ("postgres", "kamailio", "notify", "freeswitch", "media_fork", "esl_app")


class ComposedSite(Site):
    """One cell; where it keeps things, and its password, are as in the shipped configuration."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, workers=1, change=self._as_shipped)

    def _as_shipped(self, data: dict[str, Any]) -> None:
        shipped = yaml.safe_load((ROOT / "config/tandem.yaml").read_text(encoding="utf-8"))
        data |= {section: shipped[section] for section in ("freeswitch", "records")}
        data["emergency"]["notify"] = shipped["emergency"]["notify"] | {"listen": f"{self.address(1)}:5068"}
        del data["edge"]["run_directory"]
        data["esl_app"] = {"voicemail_seconds": 5}

    @property
    def environment(self) -> dict[str, str]:
        host = self.address(DATABASE_HOST)
        database = f"postgresql+psycopg://tandem:{DATABASE_PASSWORD}@{host}:5432/tandem"
        return super().environment | {"TANDEM_STATE": "/var/lib/tandem", "TANDEM_DATABASE": database}


class ComposedWorld(World):
    """A world whose site runs in containers; its phones and its model stay outside."""

    def __init__(self, client: docker.DockerClient, folder: Path, switch_image: str) -> None:
        super().__init__(ComposedSite(folder))
        self._client = client
        self._project = folder.name.lower()
        self._files = [ROOT / "docker-compose.yml"]
        if switch_image == images.LAB_SWITCH:
            self._files.append(images.HERE / "switch/docker-compose.yml")
        self._environment = folder / ".env"
        values = {
            "TANDEM_ENV_FILE": self._environment,
            "TANDEM_CONFIG_FOLDER": self.site.config.parent,
            "TANDEM_IMAGE": images.TANDEM,
            "TANDEM_EDGE_IMAGE": images.EDGE,
            "POSTGRES_IMAGE": images.POSTGRES,
            "FREESWITCH_IMAGE": switch_image,
            "POSTGRES_HOST": self.site.address(DATABASE_HOST),
            "POSTGRES_PASSWORD": DATABASE_PASSWORD,
            **{name: self.site.environment[name] for name in ("TANDEM_EVENT_SOCKET_PASSWORD", "OPENAI_API_KEY")},
        }
        self._environment.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    async def compose(self, *arguments: str) -> str:
        """Run docker-compose; what it wrote to stdout. Raises AssertionError where it fails."""
        files = [word for file in self._files for word in ("-f", str(file))]
        command = ["docker-compose", "--env-file", str(self._environment), "-p", self._project, *files, *arguments]
        done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    async def _start_site(self) -> None:
        self._stack.push_async_callback(self._take_down)
        await self.compose("up", "-d", "--no-build")
        await self.ready()

    async def _take_down(self) -> None:
        """Logs are left in the site's folder."""
        logs = await self.compose("logs", "--no-color", "--timestamps")
        (self.site.folder / "compose.log").write_text(logs, encoding="utf-8")
        await self.compose("down", "-v", "-t", "2")

    async def ready(self) -> None:
        """Every service is healthy, and the edge has its worker."""
        try:
            await self.until(self._healthy, READY_S, "every service to be healthy")
            await self.until(lambda: self._edge_ready(""), READY_S, "the edge to see its worker")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{await self.compose('logs', '--tail', '30')}") from None

    async def _healthy(self) -> bool:
        return all(self.container(service).health == "healthy" for service in SERVICES)

    def container(self, service: str) -> Container:
        labels = [f"com.docker.compose.project={self._project}", f"com.docker.compose.service={service}"]
        [container] = self._client.containers.list(all=True, filters={"label": labels})
        return container

    def pids(self, service: str) -> list[int]:
        """Processes of a service's container, as this machine numbers them."""
        top = self.container(service).top()
        column = top["Titles"].index("PID")
        return [int(row[column]) for row in top["Processes"]]

    def signal(self, service: str, number: signal.Signals) -> None:
        """To every process of a service, as if the machine had sent it, not the operator."""
        for pid in self.pids(service):
            with contextlib.suppress(ProcessLookupError):  # the first one takes the others with it
                os.kill(pid, number)

    async def health_check(self, service: str) -> int:
        """Run the service's own health check once; its exit status."""
        container = self.container(service)
        test = container.attrs["Config"]["Healthcheck"]["Test"]
        assert test[0] == "CMD"
        return int((await asyncio.to_thread(container.exec_run, test[1:])).exit_code)
