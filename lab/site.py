"""A site of the lab: addresses on a loopback network of its own, and the lab's configuration changed to fit them.

Every party has an address in 127.A.B.0/24 (A and B are picked so that sites beside each other do not meet); the ports are
those of production.
"""

import os
import random
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tandem import yamlfile
from tandem.realtime import RealtimeModel

ROOT = Path(__file__).resolve().parent.parent
LAB_CONFIG = ROOT / "lab/config"
SIP_PORT = 5060
MODEL_PORT = 8765

EDGE, MODEL, FIRST_WORKER, CARRIER, PBX, STRANGER = 1, 5, 11, 21, 31, 99
"""Last octets."""


class NoFreeNetwork(RuntimeError):
    """Every loopback network tried is taken; the message says what to look for."""


class Site:
    """Addresses and configuration; nothing runs yet.

    ``change`` may edit the mapping of tandem.yaml before it is written; ``agents`` are further agents/NAME.yaml, as text.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        openai_key: str = "",
        change: Callable[[dict[str, Any]], None] | None = None,
        agents: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.openai_key = openai_key
        self.workers = [f"worker-{number + 1}" for number in range(workers)]
        self._prefix = _free_network()
        self._change = change
        self._agents = agents or {}

    def address(self, host: int) -> str:
        return f"{self._prefix}.{host}"

    @property
    def network(self) -> str:
        """All of the site's addresses, in CIDR form."""
        return f"{self._prefix}.0/24"

    @property
    def edge(self) -> tuple[str, int]:
        return self.address(EDGE), SIP_PORT

    @property
    def model(self) -> tuple[str, int]:
        return self.address(MODEL), MODEL_PORT

    @property
    def model_url(self) -> str:
        """The lab's model, or with a key the operator's."""
        lab = f"ws://{self.model[0]}:{self.model[1]}/v1/realtime"
        return str(self._operators_model("url", RealtimeModel().url)) if self.openai_key else lab

    @property
    def model_name(self) -> str:
        return str(self._operators_model("name", RealtimeModel().name))

    def _operators_model(self, key: str, default: str) -> Any:
        data = yamlfile.load(ROOT / "config/tandem.yaml", self.environment).data
        return data.get("model", {}).get(key, default)

    @property
    def config(self) -> Path:
        return self.folder / "config/tandem.yaml"

    @property
    def rendered(self) -> Path:
        return self.folder / "site"

    @property
    def names(self) -> dict[str, str]:
        """Who has which address, for ladders."""
        parties = {EDGE: "edge", CARRIER: "carrier", PBX: "pbx", STRANGER: "stranger"}
        parties |= {FIRST_WORKER + index: worker for index, worker in enumerate(self.workers)}
        return {self.address(host): name for host, name in parties.items()}

    @property
    def environment(self) -> dict[str, str]:
        """For every process of the site."""
        return {
            **os.environ,
            "TANDEM_EVENT_SOCKET_PASSWORD": "lab-event-socket",
            "OPENAI_API_KEY": self.openai_key or "lab-key",
            "PYTHONUNBUFFERED": "1",
        }

    def write(self) -> None:
        """Write config/tandem.yaml and config/agents/ under the folder."""
        data = yamlfile.load(LAB_CONFIG / "tandem.yaml", self.environment).data
        data["edge"] = {
            "listen": [{"transport": "udp", "address": self.edge[0], "port": SIP_PORT}],
            "rpc": f"{self.edge[0]}:5067",
            "children": 2,
            "shared_memory_mb": 64,
            "probe_seconds": 1,
            "run_directory": str(self.folder / "run"),
        }
        for trunk, host in (("carrier", CARRIER), ("pbx", PBX)):
            data["trunks"][trunk]["sources"] = [f"{self.address(host)}/32"]
            data["trunks"][trunk]["gateways"] = [f"sip:{self.address(host)}:{SIP_PORT}"]
        data["workers"] = {
            worker: {"address": self.address(FIRST_WORKER + index), "loopback": self.address(FIRST_WORKER + index)}
            for index, worker in enumerate(self.workers)
        }
        data["freeswitch"] = {
            "password": "${TANDEM_EVENT_SOCKET_PASSWORD}",
            "voicemail": str(self.folder / "voicemail"),
        }
        data["model"] = {"url": self.model_url, "name": self.model_name, "key": "${OPENAI_API_KEY}"}
        data["records"] = {"url": "sqlite:///../tandem.db", "spool": "../spool"}
        if self._change:
            self._change(data)
        agents = self.config.parent / "agents"
        shutil.copytree(LAB_CONFIG / "agents", agents, dirs_exist_ok=True)
        for name, text in self._agents.items():
            (agents / f"{name}.yaml").write_text(text, encoding="utf-8")
        self.config.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def _free_network() -> str:
    """Three octets of a loopback network in which nobody listens on the SIP port."""
    for _ in range(50):
        prefix = f"127.{random.randint(20, 250)}.{random.randint(0, 255)}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((f"{prefix}.{EDGE}", SIP_PORT))
            except OSError:
                continue
            return prefix
    raise NoFreeNetwork(f"no loopback network with UDP port {SIP_PORT} free; is it bound on 0.0.0.0? stop that server")
