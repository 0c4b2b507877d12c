"""The edge of one scenario and the parties around it."""

import time
from pathlib import Path
from typing import Any

import yaml

from tandem.render import render
from tests.edge import clocks, rtpengine, trace
from tests.edge import scenario as form
from tests.edge.certificates import Certificates
from tests.edge.endpoints import Calling, Endpoint
from tests.edge.world import CONNECTED, DID, FALLBACK_DID, Edge, free_network, load_site

_PARTIES = {"carrier": "21:5060", "second": "22:5060", "pbx": "31:5060", "stranger": "99:5060"}


class Stage:
    """A real Kamailio with the site of a scenario, not yet started, and its parties, which listen.

    ``sources`` are *.cfg files to take the place of the rendered ones.
    """

    def __init__(self, scenario: form.Scenario, folder: Path, *, sources: Path | None = None) -> None:
        self.scenario, self.folder = scenario, folder
        self.net = free_network()
        self._began = time.time()
        self.traced = scenario.asks_for_flow
        self._sources = sources
        self._certificates = Certificates(folder / "tls")
        self._changes = [scenario.document.site]
        settings = load_site(self.net, folder, self._change)
        self.edge = Edge(settings, folder, self.net, trace.MAIN if self.traced else "kamailio.cfg")
        self.edge.expected_errors += scenario.document.errors
        self._render()
        self.engines = rtpengine.install(folder / "site/rtpengine", settings.rtpengine)
        self.parties = self._gather()
        first_worker = next(iter(settings.workers.values()))
        self._sentinel = Endpoint(first_worker.address, 0)

    @property
    def config(self) -> Path:
        """Where its configuration lies."""
        return self.folder / "site/kamailio"

    @property
    def workers(self) -> list[str]:
        return list(self.edge.settings.workers)

    @property
    def values(self) -> dict[str, str]:
        """What ``${name}`` stands for, parties and rows apart."""
        values = {"net": self.net, "folder": str(self.folder), "edge": f"{self.net}.1", "did": DID}
        values |= {"connected": CONNECTED, "fallback_did": FALLBACK_DID, "tls": str(self._certificates.folder)}
        return values | clocks.times(self._began)

    def _change(self, site: dict[str, Any]) -> None:
        for change in self._changes:
            if "${tls}" in yaml.safe_dump(change):
                self._certificates.issue("edge", f"{self.net}.1")
            merged = form.merge(site, form.put_in(change, self.values))
            site.clear()
            site.update(merged)

    def change_site(self, change: dict[str, Any]) -> None:
        """Write the site's files anew with ``change`` laid over the site."""
        self._changes.append(change)
        self.edge.settings = load_site(self.net, self.folder, self._change)
        self._render()

    def _render(self) -> None:
        render(self.edge.settings, self.folder / "site")
        for source in sorted(self._sources.glob("*.cfg")) if self._sources else ():
            (self.config / source.name).write_bytes(source.read_bytes())
        if self.traced:
            trace.write_main(self.config)

    def _gather(self) -> dict[str, Endpoint]:
        places = {name: f"{self.net}.{place}" for name, place in _PARTIES.items()}
        for name, worker in self.edge.settings.workers.items():
            places[name] = f"{worker.address}:{worker.sip_port}"
        places |= {name: form.put_in(place, self.values) for name, place in self.scenario.document.parties.items()}
        with_tls = "tls" in {socket.transport.value for socket in self.edge.settings.edge.listen}
        parties = {}
        for name, place in places.items():
            address, _, port = place.rpartition(":")
            server, client = self._certificates.contexts(name, address) if with_tls else (None, None)
            parties[name] = Endpoint(address, int(port), server, client)
        return parties

    def edge_at(self, over: str) -> tuple[str, int]:
        """Where the edge listens over that transport."""
        for socket in self.edge.settings.edge.listen:
            if socket.transport.value == over:
                return socket.address, socket.port
        raise form.ScenarioError(f"{self.scenario.file}: the edge does not listen over {over}")

    def start(self) -> None:
        for engine in self.engines.values():
            if not engine.running:
                engine.start()
        options = [form.put_in(option, self.values) for option in self.scenario.document.options]
        self.edge.start(*(word for option in options for word in ("-A", option)))

    def settle(self) -> None:
        """Return when the edge has dealt with all that was sent before, and every party has all that came of it.

        It deals with datagrams in the order of their arrival, so the answer to an OPTIONS comes last.
        """
        if self.edge.process is None:
            return
        over = self.edge.settings.edge.listen[0].transport.value
        asking = Calling(self._sentinel, self.edge_at(over), f"sip:{self.net}.1", "sentinel", over)
        asking.send("OPTIONS")
        self._sentinel.wait(lambda m: m.call_id == asking.call_id, "the answer to its OPTIONS")
        for endpoint in self.parties.values():
            if endpoint.transport.is_open:
                endpoint.transport.drain()

    def log_from(self, begin: int) -> list[str]:
        """Lines logged since the log had that length, without the tracer's."""
        if not (self.folder / "kamailio.log").exists():
            return []
        return [line for line in self.edge.log[begin:].splitlines() if not trace.is_trace(line)]

    def close(self) -> None:
        self.edge.close()
        for engine in self.engines.values():
            engine.kill()
        for endpoint in [*self.parties.values(), self._sentinel]:
            endpoint.close()
