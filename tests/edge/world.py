"""The real Kamailio with the rendered configuration, and the parties around it, each on an address of 127.A.B.0/24."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab import kamailio
from tandem import settings as tandem_settings
from tandem.edge import worker_uri
from tests.edge.endpoints import Calling, Endpoint, Message
from tests.edge.scenario import put_in

Change = Callable[[dict[str, Any]], None]
DID = "+12025550100"
"""Leads to the agent."""
CONNECTED = "+12025550101"
"""Is connected through to the PBX."""
FALLBACK_DID = "+12025550102"
"""Leads to the agent, and to 2001 on the PBX where the agent cannot be had."""
AGENT = {"instructions": "Answer.", "greeting": "Hello."}
KAMAILIO = shlex.split(os.environ.get("TANDEM_KAMAILIO", "kamailio"))
"""The command: another version is `TANDEM_KAMAILIO="chroot /some/tree kamailio"`, with this tree and /tmp bound there."""
SITE = Path(__file__).with_name("site.yaml")
PATIENT = "MEDIA_PATIENCE_MS=1000"
"""An rtpengine that is well is never taken for one that is away, however busy the machine is."""
_ERROR = re.compile(r"(ERROR|CRITICAL|BUG|ALERT): (?!<script>)(?!.*receive_fd\(\): EOF)")


@dataclass
class Edge:
    """A running Kamailio and its neighbours, each at an address of its own."""

    settings: tandem_settings.Settings
    folder: Path
    net: str
    main: str = "kamailio.cfg"
    """The file that it starts with."""
    process: "subprocess.Popen[bytes] | None" = None
    expected_errors: list[str] = field(default_factory=list)
    """Patterns of log lines at ERROR or above that the test provokes."""
    _parties: dict[str, Endpoint] = field(default_factory=dict)

    @property
    def at(self) -> tuple[str, int]:
        return f"{self.net}.1", 5060

    @property
    def log(self) -> str:
        return (self.folder / "kamailio.log").read_text(encoding="utf-8", errors="replace")

    def address(self, host: int) -> str:
        return f"{self.net}.{host}"

    def party(self, host: int, port: int = 5060) -> Endpoint:
        """The endpoint at that address, listening from now on."""
        name = f"{host}:{port}"
        if name not in self._parties:
            self._parties[name] = Endpoint(self.address(host), port)
        return self._parties[name]

    @property
    def carrier(self) -> Endpoint:
        return self.party(21)

    @property
    def second_carrier(self) -> Endpoint:
        return self.party(22)

    @property
    def pbx(self) -> Endpoint:
        return self.party(31)

    @property
    def stranger(self) -> Endpoint:
        return self.party(99)

    def worker(self, number: int) -> Endpoint:
        """The worker of that number, from 1."""
        return self.party(10 + number, 5080)

    @property
    def workers(self) -> list[Endpoint]:
        return [self.worker(number + 1) for number in range(len(self.settings.workers))]

    def from_carrier(self, to: str = DID, **options: Any) -> Calling:
        return self.carrier.invite(to, self.at, **options)

    def from_pbx(self, to: str, **options: Any) -> Calling:
        return self.pbx.invite(to, self.at, caller=options.pop("caller", "+12025550101"), **options)

    def first_worker(self, call_id: str) -> tuple[Endpoint, Message]:
        """The worker that got the INVITE of this call first, and the INVITE."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for worker in self.workers:
                if invites := worker.got("INVITE", call_id):
                    return worker, invites[0]
            time.sleep(0.002)
        raise TimeoutError("no worker got the INVITE")

    def arrival(self, calling: Calling) -> Message:
        """The INVITE as it reached a worker, which then refuses it with 486."""
        worker, invite = self.first_worker(calling.call_id)
        worker.reply(invite, 486)
        assert calling.final().status == 486
        return invite

    def rpc(self, method: str, *params: Any) -> Any:
        return self.rpc_answer(method, *params)["result"]

    def rpc_answer(self, method: str, *params: Any) -> dict[str, Any]:
        """The whole answer, with ``result`` or ``error``."""
        request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        try:
            text = self.http("/rpc", request)
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        answer: dict[str, Any] = json.loads(text)
        return answer

    def http(self, path: str, body: bytes | None = None) -> str:
        with urllib.request.urlopen(f"http://{self.settings.edge.rpc}{path}", body, timeout=3) as response:
            return str(response.read().decode())

    def counters(self) -> dict[tuple[str, str], float]:
        """Counters and gauges of /metrics that have labels, by name and the labels' values, in order, between them a space."""
        found = {}
        for line in self.http("/metrics").splitlines():
            if match := re.fullmatch(r"tandem_edge_(\w+) ?\{(.*)\} (\S+) \d+", line):
                found[match[1], " ".join(re.findall(r'="([^"]*)"', match[2]))] = float(match[3])
        return found

    def counter(self, name: str, label: str) -> float:
        """One of /metrics by its labels' values. Raises KeyError where there is no such series."""
        return self.counters()[name, label]

    def worker_states(self) -> dict[str, str]:
        """FLAGS of each worker in the dispatcher, by name."""
        return {target["ATTRS"]["DUID"]: target["FLAGS"] for target in self.targets(1)}

    def worker_loads(self) -> dict[str, int]:
        """Calls that each worker carries, by name."""
        slots = self.rpc("htable.dump", "load") or []
        loads = {item["name"]: item["value"] for slot in slots for item in slot["slot"]}
        return {name: loads.get(worker_uri(worker), 0) for name, worker in self.settings.workers.items()}

    def targets(self, wanted: int) -> Iterator[Any]:
        """Entries of one set of the dispatcher."""
        for record in self.rpc("dispatcher.list")["RECORDS"]:
            if record["SET"]["ID"] == wanted:
                for target in record["SET"]["TARGETS"]:
                    yield target["DEST"]

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
            time.sleep(0.005)

    def start(self, *options: str) -> None:
        site = self.folder / "site/kamailio" / self.main
        if not any(option.startswith("MEDIA_PATIENCE_MS=") for option in options):
            options = (*options, "-A", PATIENT)
        with (self.folder / "kamailio.log").open("ab") as log:
            self.process = subprocess.Popen(
                kamailio.command(site, self.settings.edge.run_directory, *options, program=KAMAILIO),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until(self._serves, "Kamailio to serve")

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"Kamailio ended:\n{self.log}"
        with contextlib.suppress(OSError):
            return "ok" in self.http("/healthz")
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                # A child that SIGTERM reaches while it is still being started never ends (Kamailio waits a minute for it).
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
            self.process = None

    def unexpected_errors(self) -> list[str]:
        """Lines that Kamailio logged at ERROR or above (our own xlog lines apart) and the test did not provoke."""
        if not (self.folder / "kamailio.log").exists():
            return []
        errors = [line for line in self.log.splitlines() if _ERROR.search(line)]
        return [line for line in errors if not any(re.search(pattern, line) for pattern in self.expected_errors)]

    def close(self) -> None:
        self.stop()
        for party in self._parties.values():
            party.close()


def site(net: str, folder: Path) -> dict[str, Any]:
    """tandem.yaml of the tests, as a mapping."""
    data: dict[str, Any] = put_in(yaml.safe_load(SITE.read_text(encoding="utf-8")), {"net": net, "folder": str(folder)})
    return data


def load_site(net: str, folder: Path, change: Change | None = None) -> tandem_settings.Settings:
    data = site(net, folder)
    if change:
        change(data)
    config = folder / "config"
    (config / "agents").mkdir(parents=True, exist_ok=True)
    (config / "tandem.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    (config / "agents/reception.yaml").write_text(yaml.safe_dump(AGENT), encoding="utf-8")
    return tandem_settings.load(config / "tandem.yaml", os.environ)


def free_network() -> str:
    """127.A.B of a /24 that no other test is using."""
    for _ in range(50):
        net = f"127.{random.randint(64, 250)}.{random.randint(0, 255)}"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind((f"{net}.1", 5060))
            return net
    raise OSError("no free network in 127.0.0.0/8")


MakeEdge = Callable[..., Edge]
