"""The notifier with the real Kamailio: people are told of emergency calls, and no call ever waits for that."""

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tandem.notify.channels import signature
from tests.edge.endpoints import establish
from tests.edge.world import Edge, MakeEdge

SECRET = "a-secret-of-the-tests"
LOCATED = Path(__file__).parent / "scenarios/emergency/body-and-location-pass-byte-for-byte/located.body"


class Desk(ThreadingHTTPServer):
    """A webhook's receiver. Answers ``status``; with ``hangs`` it takes a request and says nothing."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        self.told: list[tuple[float, Any, bytes]] = []
        self.status = 200
        self.hangs = threading.Event()
        super().__init__(address, _Handler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, _, body in self.told]


class _Handler(BaseHTTPRequestHandler):
    server: Desk

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.hangs.is_set():
            time.sleep(30)
            return
        if self.server.status < 300:
            self.server.told.append((time.monotonic(), self.headers, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Notifier:
    """The process, with the configuration of an edge."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.log = edge.folder / f"notifier-{time.monotonic_ns()}.log"
        with self.log.open("ab") as log:
            config = str(edge.folder / "config/tandem.yaml")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tandem.notify", "--config", config], stdout=log, stderr=log
            )
        edge.until(lambda: b"ready: " in self.log.read_bytes() or self.process.poll() is not None, "the notifier", 20)
        assert self.process.poll() is None, self.log.read_text()

    def health(self) -> Any:
        url = f"http://{self.edge.settings.emergency.notify.listen}/healthz"
        with contextlib.suppress(urllib.error.URLError):
            with urllib.request.urlopen(url, timeout=3) as reply:
                return json.loads(reply.read())
        return {}

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(5)


class Scene:
    """An edge with a desk to tell, and its notifiers."""

    def __init__(self, make_edge: MakeEdge, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        def with_notify(site: dict[str, Any]) -> None:
            net = site["edge"]["rpc"].rpartition(".")[0]
            site["emergency"]["notify"] = {
                "recipients": {"desk": {"type": "webhook", "url": f"http://{net}.40:8000/emergency", "secret": SECRET}},
                "site": "the head office",
                "listen": f"{net}.1:5068",
                "journal": "../notices",
            }
            if change:
                change(site)

        self.edge = make_edge(with_notify)
        self.net = self.edge.net
        self.desk = Desk((f"{self.net}.40", 8000))
        self.notifiers: list[Notifier] = []

    def notifier(self) -> Notifier:
        self.notifiers.append(Notifier(self.edge))
        return self.notifiers[-1]

    def place(self, uri: str = "sip:911@{edge}", **options: Any) -> Any:
        edge = self.edge
        return edge.pbx.invite("", edge.at, uri=uri.replace("{edge}", edge.at[0]), caller="+12025550101", **options)

    def told(self, events: list[str]) -> None:
        self.edge.until(lambda: self.desk.events() == events, f"{events}, so far {self.desk.events()}")

    def close(self) -> None:
        for notifier in self.notifiers:
            if notifier.process.poll() is None:
                notifier.stop(signal.SIGKILL)
        self.desk.shutdown()
        self.desk.server_close()


MakeScene = Callable[..., Scene]


@pytest.fixture
def make_scene(make_edge: MakeEdge) -> Iterator[MakeScene]:
    scenes: list[Scene] = []

    def make(change: Callable[[dict[str, Any]], None] | None = None) -> Scene:
        scenes.append(Scene(make_edge, change))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(make_scene: MakeScene) -> Scene:
    return make_scene()


def test_desk_is_told_while_the_call_is_being_placed_and_of_what_becomes_of_it(scene: Scene):
    scene.notifier()
    headers = [("Geolocation", "<cid:there@example.com>"), ("Geolocation-Routing", "yes")]
    sent = time.monotonic()
    calling = scene.place(headers=headers, body=LOCATED.read_bytes(), content_type="multipart/mixed;boundary=b1")
    invite = scene.edge.carrier.request("INVITE", calling.call_id)
    scene.edge.carrier.reply(invite, 180)
    scene.told(["placed"])
    scene.edge.carrier.reply(invite, 503)
    establish(calling, scene.edge.second_carrier, scene.edge.second_carrier.request("INVITE", calling.call_id))
    scene.told(["placed", "refused", "answered"])
    at, signed, body = scene.desk.told[0]
    print(f"told {1000 * (at - sent):.0f} ms after the INVITE was sent")
    placed, refused, answered = (json.loads(body) for _, _, body in scene.desk.told)
    assert signed["Tandem-Signature"] == signature(SECRET, int(signed["Tandem-Signature"][2:].split(",")[0]), body)
    assert placed | {"time": "", "id": "", "call": ""} == {
        "version": 1,
        "id": "",
        "event": "placed",
        "test": False,
        "time": "",
        "site": "the head office",
        "call": "",
        "sip_call_id": calling.call_id,
        "trunk": "pbx",
        "tenant": "default",
        "dialled": "911",
        "phone": "+12025550101",
        "callback_number": "+12025550101",
        "carrier": "carrier",
        "gateway": f"sip:{scene.edge.carrier.host}",
        "location": {
            "geolocation": ["<cid:there@example.com>"],
            "geolocation_routing": "yes",
            "pidf_lo": ["<presence>\x00\ufffd 12 Harbour Street</presence>"],
        },
    }
    assert (refused["status"], refused["carrier"], refused["call"]) == (503, "carrier", placed["call"])
    assert (answered["carrier"], answered["call"]) == ("second", placed["call"])
    assert f"call={placed['call']}" in scene.edge.log
    assert "Harbour" not in scene.edge.log + scene.notifiers[0].log.read_text()


@pytest.mark.parametrize("uri", ["sip:933@{edge}", "urn:service:test.sos"])
def test_test_call_is_marked_as_one(scene: Scene, uri: str):
    scene.notifier()
    calling = scene.place(uri)
    establish(calling, scene.edge.carrier, scene.edge.carrier.request("INVITE", calling.call_id))
    scene.told(["placed", "answered"])
    assert all(json.loads(body)["test"] for _, _, body in scene.desk.told)


def test_retransmission_is_told_once(scene: Scene):
    scene.notifier()
    calling = scene.place()
    invite = scene.edge.carrier.request("INVITE", calling.call_id)
    calling.retransmit()
    scene.edge.carrier.reply(invite, 180)
    establish(calling, scene.edge.carrier, invite)
    # The same call once more under a transaction of its own, as a PBX may send it after a time-out.
    calling.branch += "x"
    calling.cseq += 1
    calling.send("INVITE")
    again = scene.edge.carrier.wait(lambda m: m.is_request and m["CSeq"] == "2 INVITE", "the second INVITE")
    scene.edge.carrier.reply(again, 200)
    scene.told(["placed", "answered", "answered"])


def test_notifier_that_was_away_tells_what_happened_meanwhile(scene: Scene):
    calling = scene.place()
    establish(calling, scene.edge.carrier, scene.edge.carrier.request("INVITE", calling.call_id))
    scene.notifier()
    scene.told(["placed", "answered"])
    scene.edge.until(
        lambda: "error" in scene.edge.rpc_answer("htable.get", "notices", "1"), "the notice to be taken out"
    )


def test_killed_notifier_loses_nothing_and_tells_nothing_twice(scene: Scene):
    notifier = scene.notifier()
    scene.desk.status = 503
    first = scene.place()
    establish(first, scene.edge.carrier, scene.edge.carrier.request("INVITE", first.call_id))
    scene.edge.until(lambda: notifier.health().get("waiting") == 2, "both to be written down")
    notifier.stop(signal.SIGKILL)
    scene.desk.status = 200
    scene.notifier()
    scene.told(["placed", "answered"])
    assert scene.notifiers[-1].stop() == 0
    scene.notifier()
    second = scene.place()
    establish(second, scene.edge.carrier, scene.edge.carrier.request("INVITE", second.call_id))
    scene.told(["placed", "answered", "placed", "answered"])


def test_notifier_survives_a_restart_of_the_edge(scene: Scene):
    notifier = scene.notifier()
    first = scene.place()
    establish(first, scene.edge.carrier, scene.edge.carrier.request("INVITE", first.call_id))
    scene.told(["placed", "answered"])
    scene.edge.stop()
    scene.edge.until(lambda: notifier.health() == {}, "the notifier to notice")
    scene.edge.start()
    second = scene.place()
    establish(second, scene.edge.carrier, scene.edge.carrier.request("INVITE", second.call_id))
    scene.told(["placed", "answered", "placed", "answered"])


@pytest.mark.parametrize("trouble", ["dead", "stopped", "desk hangs", "desk refuses", "no disk", "never there"])
def test_call_does_not_wait_for_the_notifier(scene: Scene, trouble: str):
    edge = scene.edge
    if trouble == "no disk":
        (edge.folder / "notices").write_text("in the way")
    notifier = None if trouble == "never there" else scene.notifier()
    if notifier and trouble == "dead":
        notifier.stop(signal.SIGKILL)
    if notifier and trouble == "stopped":
        notifier.process.send_signal(signal.SIGSTOP)
    if trouble == "desk hangs":
        scene.desk.hangs.set()
    scene.desk.status = 500 if trouble == "desk refuses" else 200
    times = []
    for _ in range(20):
        calling = scene.place()
        invite = edge.carrier.request("INVITE", calling.call_id)
        times.append(invite.at - calling.sent_at)
        near, _ = establish(calling, edge.carrier, invite)
        near.send("BYE")
        edge.carrier.reply(edge.carrier.request("BYE", calling.call_id), 200)
    print(f"{trouble}: {1000 * sorted(times)[10]:.1f} ms in the middle, {1000 * max(times):.1f} ms at most")
    assert sorted(times)[10] < 0.5
    if trouble == "no disk":
        scene.told(["placed", "answered"] * 20)
        assert notifier and notifier.health() == {}  # 503


def test_journal_is_its_owners_alone_and_one_notifiers(scene: Scene):
    notifier = scene.notifier()
    folder = scene.edge.folder / "notices"
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    with pytest.raises(AssertionError, match="in use by another notifier"):
        scene.notifier()
    assert notifier.health()["status"] == "ok"


def test_recipient_is_told_what_concerns_it(make_scene: MakeScene):
    def change(site: dict[str, Any]) -> None:
        recipients = site["emergency"]["notify"]["recipients"]
        recipients["results"] = recipients["desk"] | {"events": ["answered"], "location": False}
        recipients["elsewhere"] = recipients["desk"] | {"trunks": ["annex"]}
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["trunks"]["annex"] = {"kind": "pbx", "sources": [f"{net}.32/32"], "gateways": [f"sip:{net}.32:5060"]}

    scene = make_scene(change)
    scene.notifier()
    calling = scene.place(headers=[("Geolocation", "<https://lis.example.com/a>")])
    establish(calling, scene.edge.carrier, scene.edge.carrier.request("INVITE", calling.call_id))
    scene.edge.until(
        lambda: sorted(scene.desk.events()) == ["answered", "answered", "placed"], "all that concerns them"
    )
    database = sqlite3.connect(f"file:{scene.edge.folder / 'notices/journal.sqlite'}?mode=ro", uri=True)
    query = "select recipient, state, count(*) from deliveries group by 1, 2 order by 1"
    told = [("desk", "told", 2), ("results", "told", 1)]
    scene.edge.until(lambda: database.execute(query).fetchall() == told, "it to be written down")


def test_metrics_and_health(scene: Scene):
    notifier = scene.notifier()
    calling = scene.place()
    establish(calling, scene.edge.carrier, scene.edge.carrier.request("INVITE", calling.call_id))
    scene.told(["placed", "answered"])
    scene.edge.until(lambda: notifier.health().get("waiting") == 0, "all to be told")
    assert notifier.health() == {"status": "ok", "edge": "up", "journal": "on disk", "waiting": 0}
    url = f"http://{scene.edge.settings.emergency.notify.listen}/metrics"
    with urllib.request.urlopen(url, timeout=3) as reply:
        text = reply.read().decode()
    for line in (
        'tandem_notify_notices_total{event="placed"} 1.0',
        'tandem_notify_deliveries_total{recipient="desk",result="told"} 2.0',
        'tandem_notify_waiting{recipient="desk"} 0.0',
        "tandem_notify_edge_up 1.0",
    ):
        assert line in text


def test_notifier_uses_no_socket_of_others(scene: Scene):
    with socket.create_server((f"{scene.net}.1", 5068)):
        with pytest.raises(AssertionError, match="cannot serve"):
            scene.notifier()
    assert (scene.edge.folder / "notices").exists()
