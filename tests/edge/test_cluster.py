"""Two edges with one address, each in a network namespace of its own: what a call keeps when the one that has it is killed."""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.edge import Group, Source, cluster_peers
from tandem.render import render
from tests.edge.endpoints import Calling, Dialog, Endpoint, Message, establish
from tests.edge.needs import missing
from tests.edge.world import DID, FALLBACK_DID, KAMAILIO, Edge, MakeEdge, load_site

NET = "10.213.97"
"""Exists in the namespaces alone."""
SHARED = f"{NET}.1"
GUIDE = (Path(__file__).parents[2] / "docs/high-availability.md").read_text(encoding="utf-8")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@contextlib.contextmanager
def within(namespace: str) -> Iterator[None]:
    """What this thread opens and starts is in that namespace; sockets stay there."""
    with Path("/proc/thread-self/ns/net").open("rb") as here, Path("/run/netns", namespace).open("rb") as there:
        if _LIBC.setns(there.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if _LIBC.setns(here.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


class Node:
    """One of the two edges: its namespace, its own address, its Kamailio."""

    def __init__(self, namespace: str, own: str, peer: str, folder: Path) -> None:
        self.namespace = namespace

        def change(site: dict[str, Any]) -> None:
            site["edge"] |= {
                "rpc": "127.0.0.1:5067",
                "cluster": {"address": f"{own}:5062", "peers": [f"{peer}:5062"]},
                "children": 2,
            }
            site["tenants"] = {"acme": {"max_calls": 2}}
            site["policy"] = {"rules": [{"name": "home", "prefixes": ["+1"], "max_calls": 1, "max_calls_per_hour": 2}]}
            site["trunks"]["carrier"]["credentials"] = {"username": "tandem", "password": "secret"}
            for worker in site["workers"].values():
                worker["loopback"] = "127.0.0.1"

        self.edge = Edge(load_site(NET, folder, change), folder, NET)
        # The other is killed.
        self.edge.expected_errors += ["dmq|DMQ|not deleting notification peer", "udp_send|msg_send"]
        render(self.edge.settings, folder / "site")

    def start(self) -> None:
        with within(self.namespace):
            self.edge.start()

    def kill(self) -> None:
        assert self.edge.process is not None
        os.killpg(self.edge.process.pid, signal.SIGKILL)
        self.edge.process.wait(10)
        self.edge.process = None

    def rpc(self, method: str, *params: Any) -> Any:
        with within(self.namespace):
            return self.edge.rpc(method, *params)

    def loads(self) -> list[int]:
        with within(self.namespace):
            return sorted(self.edge.worker_loads().values())

    def calls_of_tenant(self) -> float:
        with within(self.namespace):
            return self.edge.counter("tenant_calls", "acme")

    def calls_of_rule(self) -> float:
        with within(self.namespace):
            return self.edge.counter("rule_calls", "home")

    def table(self, name: str) -> dict[str, Any]:
        return {entry["name"]: entry["value"] for slot in self.rpc("htable.dump", name) or [] for entry in slot["slot"]}

    def has_told(self) -> bool:
        """Every request that it sent has come to an end."""
        transactions = self.rpc("tm.stats")
        return bool(transactions["current"] == transactions["waiting"])

    def notify(self, state: str) -> None:
        """What keepalived runs, as the guide has it."""
        (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", GUIDE, re.DOTALL)
        script = script.replace("/run/tandem/kamailio", str(self.edge.settings.edge.run_directory))
        with within(self.namespace):
            subprocess.run(["sh", "-ec", script, "notify", "INSTANCE", "edge", state, "100"], check=True, timeout=10)

    def take(self) -> None:
        """The shared address, as keepalived takes it."""
        _ip("-n", self.namespace, "address", "add", f"{SHARED}/24", "dev", "eth0")
        with within(self.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("eth0", 0))
            mac, address = wire.getsockname()[4], socket.inet_aton(SHARED)
            everybody = b"\xff" * 6
            # RFC 826, as a reply of ours to nobody's question
            arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + address + everybody + address
            wire.send(everybody + mac + struct.pack("!H", 0x0806) + arp)
        self.notify("MASTER")

    def lose(self) -> None:
        """As a machine that was switched off."""
        _ip("-n", self.namespace, "address", "del", f"{SHARED}/24", "dev", "eth0")


class Site:
    """A bridge in the phones' namespace, which has every address but those of the edges."""

    def __init__(self, folder: Path) -> None:
        mark = f"t{os.getpid()}"
        self.phones, names = f"{mark}-phones", [f"{mark}-a", f"{mark}-b"]
        self.namespaces = [self.phones, *names]
        self._made: list[str] = []
        self.parties: list[Endpoint] = []
        self.nodes: list[Node] = []
        try:
            for name in self.namespaces:
                _ip("netns", "add", name)
                self._made.append(name)
                _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", self.phones, "link", "add", "br0", "type", "bridge")
            for host in (11, 12, 21, 22, 31):
                _ip("-n", self.phones, "address", "add", f"{NET}.{host}/24", "dev", "br0")
            _ip("-n", self.phones, "link", "set", "br0", "up")
            for number, name in enumerate(names, 2):
                port = f"port{number}"
                _ip("-n", self.phones, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
                _ip("-n", self.phones, "link", "set", port, "master", "br0", "up")
                _ip("-n", name, "link", "set", "eth0", "up")
                _ip("-n", name, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
                self.nodes.append(Node(name, f"{NET}.{number}", f"{NET}.{5 - number}", folder / name))
            with within(self.phones):
                self.carrier, self.pbx = self._party(21), self._party(31)
                self.second = self._party(22)
                self.workers = [self._party(11, 5080), self._party(12, 5080)]
        except BaseException:
            self.close()
            raise

    def _party(self, host: int, port: int = 5060) -> Endpoint:
        self.parties.append(Endpoint(f"{NET}.{host}", port))
        return self.parties[-1]

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for name in self._made:
                closing.callback(_ip, "netns", "del", name)
            for node in self.nodes:
                closing.callback(node.edge.stop)
            if self.parties:
                with within(self.phones):
                    for party in self.parties:
                        party.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if os.geteuid() != 0:
        missing("network namespaces need root")
    if not shutil.which(KAMAILIO[0]) or not shutil.which("ip"):
        missing("kamailio or iproute2 is not installed")
    try:
        made = Site(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"no network namespaces here: {error}")
    yield made
    made.close()
    for node in made.nodes:
        unexpected = node.edge.unexpected_errors()
        assert not unexpected, "Kamailio logged errors:\n" + "\n".join(unexpected)


def carried(side: Dialog, far: Endpoint, method: str) -> Message:
    """A request within the dialog reaches the far end, and its 200 comes back: what the far end got. It is sent again until then,
    as a phone does over UDP (RFC 3261 section 17.1).
    """
    sent = side.send(method)

    def answered(phone: Endpoint, match: Callable[[Message], bool], what: str) -> Message:
        for interval_s in (0.5, 1.0, 2.0, 4.0, 4.0, 4.0):
            with contextlib.suppress(TimeoutError):
                return phone.wait(lambda m: m.call_id == sent.call_id and match(m), what, interval_s)
            side.phone.send(sent.raw, side.edge)
        raise TimeoutError(f"{what} did not come")

    branch = sent.branch
    request = answered(
        far, lambda m: m.is_request and m.method == method and branch in str(m.all("Via")), f"{method} within the call"
    )
    far.reply(request, 200)
    answer = answered(
        side.phone, lambda m: not m.is_request and branch in m["Via"] and m.status >= 200, f"a final reply to {method}"
    )
    assert answer.status == 200
    if method == "INVITE":
        side.send("ACK")
    return request


def test_calls_outlive_the_edge_that_has_them(site: Site):
    first, other = site.nodes
    first.start()
    first.take()
    other.start()
    other.notify("BACKUP")
    edge = (SHARED, 5060)
    worker, second_worker = site.workers
    until = first.edge.until
    until(
        lambda: len(first.rpc("dmq.list_nodes")) == len(other.rpc("dmq.list_nodes")) == 2,
        "the edges to know each other",
    )

    # With the first: a worker drained, a call to an agent that counts for its tenant, an emergency call.
    first.rpc("htable.seti", "drained", "worker-2", 1)
    calling = site.carrier.invite(DID, edge)
    caller, callee = establish(calling, worker, worker.request("INVITE", calling.call_id))
    emergency = site.pbx.invite("911", edge, caller=DID)
    station, _ = establish(emergency, site.carrier, site.carrier.request("INVITE", emergency.call_id))
    # And one that an agent placed, which counts for its rule.
    over = [("X-Tandem-Trunk", "carrier")]
    placed = worker.invite("+14155550199", edge, headers=over)
    agent, _ = establish(placed, site.carrier, site.carrier.request("INVITE", placed.call_id))
    until(lambda: other.loads() == [0, 1], "the load to be known to the other")
    until(lambda: other.calls_of_rule() == 1, "the rule's call to be known to the other")
    until(lambda: other.calls_of_tenant() == 1, "the tenant's call to be known to the other")
    until(lambda: other.table("callbacks") == {DID: f"pbx/{DID}"}, "the callback window to be known to the other")
    assert other.table("drained") == {"worker-2": 1}

    first.kill()
    first.lose()
    other.take()

    # The other carries on: within the calls, and what it knows of them holds for new ones.
    carried(caller, worker, "INVITE")
    carried(callee, site.carrier, "INVITE")
    carried(station, site.carrier, "BYE")
    callback = site.second.invite(DID, edge)
    site.pbx.reply(site.pbx.request("INVITE", callback.call_id), 486)
    assert callback.final().status == 486
    again = site.carrier.invite(FALLBACK_DID, edge)
    caller_again, _ = establish(again, worker, worker.request("INVITE", again.call_id))
    assert site.carrier.invite(FALLBACK_DID, edge).final().reason == "tenant full"
    assert other.loads() == [0, 2]
    assert second_worker.invite("+14155550198", edge, headers=over).final().reason == "too many calls"
    carried(agent, site.carrier, "BYE")
    busy = worker.invite("+14155550198", edge, headers=over)
    site.carrier.reply(site.carrier.request("INVITE", busy.call_id), 486)
    assert busy.final().status == 486
    assert second_worker.invite("+14155550198", edge, headers=over).final().reason == "too many calls per hour"

    # The first is back, and learns what there is. What it was told while it was dead has timed out, or the other would take it for
    # dead for as long as that lasts.
    until(other.has_told, "the other to have given up telling the first")
    first.start()
    first.notify("BACKUP")
    until(lambda: first.loads() == [0, 2], "the loads to be known again")
    until(lambda: first.calls_of_tenant() == 2, "the tenant's calls to be known again")
    until(lambda: DID in first.table("callbacks"), "the callback window to be known again")
    until(lambda: sum(first.table("rule_tries").values()) == 2, "the rule's calls of the hour to be known again")
    assert first.table("drained") == {"worker-2": 1}

    # The call ends with the one, and is over for both; then back to the first, which ends the last.
    carried(caller, worker, "BYE")
    for node in (other, first):
        until(lambda node=node: node.loads() == [0, 1] and node.calls_of_tenant() == 1, "the end to be known to both")
    other.kill()
    other.lose()
    first.take()
    carried(caller_again, worker, "BYE")
    until(lambda: first.loads() == [0, 0] and first.calls_of_tenant() == 0, "nothing to be left")
    assert not second_worker.got("INVITE")


def test_a_challenged_call_loses_the_count_of_its_requests_with_its_edge(site: Site):
    """A known limit, told in docs/high-availability.md: which CSeq the carrier had last is known to one edge alone."""
    first, other = site.nodes
    first.start()
    first.take()
    other.start()
    other.notify("BACKUP")
    calling = site.pbx.invite("+14155550199", (SHARED, 5060), caller=DID)
    challenge = ("Proxy-Authenticate", 'Digest realm="carrier.example", nonce="abc", algorithm=MD5, qop="auth"')
    site.carrier.reply(site.carrier.request("INVITE", calling.call_id), 407, headers=[challenge])
    told = site.carrier.wait(lambda m: m.is_request and m["CSeq"] == "2 INVITE", "the INVITE with credentials")
    caller, _ = establish(calling, site.carrier, told)
    assert carried(caller, site.carrier, "UPDATE")["CSeq"] == "3 UPDATE"
    first.kill()
    first.lose()
    other.take()
    # Its own CSeq, 3, which the carrier had already.
    assert carried(caller, site.carrier, "BYE")["CSeq"] == "3 BYE"


def test_what_comes_on_the_port_of_the_cluster(make_edge: MakeEdge):
    """KDMQ of a peer is taken; that of others, and calls of whomever, are not heard there; and KDMQ nowhere else."""

    def change(site: dict[str, Any]) -> None:
        net = site["edge"]["rpc"].rpartition(".")[0]
        site["edge"]["cluster"] = {"address": f"{net}.2:5062", "peers": [f"{net}.3:5062"]}

    edge = make_edge(change)
    edge.expected_errors.append("notification_resp_callback_f")
    cluster = (edge.address(2), 5062)
    peer = edge.party(3, 5062)

    def tell(phone: Endpoint, worker: str, to: tuple[str, int]) -> Calling:
        body = json.dumps({"action": 2, "htname": "drained", "cname": worker, "type": 0, "intval": 1, "mode": 1})
        telling = Calling(phone, to, f"sip:htable@{to[0]}:{to[1]}", "htable")
        telling.send("KDMQ", body=body, content_type="application/json")
        return telling

    # It has begun to count.
    assert edge.carrier.options_of(edge.at) == 200
    for phone in (edge.stranger, edge.carrier, edge.worker(1)):
        tell(phone, "worker-1", cluster)
    for method in ("INVITE", "OPTIONS"):
        Calling(edge.pbx, cluster, f"sip:911@{cluster[0]}", "tester").send(method)
        Calling(peer, cluster, f"sip:911@{cluster[0]}", "tester").send(method)
    edge.until(lambda: edge.counter("dropped_total", "cluster_port") == 7, "all of that to be dropped")
    for phone in (peer, edge.carrier):
        telling = tell(phone, "worker-1", edge.at)
        refused = phone.wait(lambda m, telling=telling: m.call_id == telling.call_id, "the refusal")
        assert refused.status == 405
    # From a peer, and a call of an edge is a stranger's.
    assert peer.invite("911", edge.at).final().reason == "emergency from carrier"
    telling = tell(peer, "worker-2", cluster)
    assert peer.wait(lambda m: m.call_id == telling.call_id, "the reply").status == 200
    edge.until(lambda: bool(edge.rpc("htable.dump", "drained")), "it to be taken")
    assert [slot["slot"][0]["name"] for slot in edge.rpc("htable.dump", "drained")] == ["worker-2"]
    assert not edge.stranger.seen + edge.worker(1).seen + edge.pbx.seen


def test_guide_has_a_site_that_loads(tmp_path: Path):
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    documented = yaml.safe_load(text.replace("${EDGE_ADDRESS}", "10.0.0.2").replace("${PEER_ADDRESS}", "10.0.0.3"))
    settings = load_site("127.99.99", tmp_path, lambda site: site["edge"].update(documented["edge"]))
    assert cluster_peers(settings) == [Source(Group.CLUSTER, "10.0.0.3", 32, "edge")]
    assert settings.edge.rpc.rpartition(":")[2] == "5067" and "http://127.0.0.1:5067/healthz" in GUIDE


@pytest.mark.skipif(not shutil.which("keepalived"), reason="keepalived is not installed")
def test_keepalived_takes_the_configuration_of_the_guide(tmp_path: Path):
    (text,) = re.findall(r"```\n(global_defs .*?)```", GUIDE, re.DOTALL)
    notify = tmp_path / "notify"
    notify.write_text("#!/bin/sh\n", encoding="utf-8")
    notify.chmod(0o755)
    file = tmp_path / "keepalived.conf"
    interfaces = sorted({entry.name for entry in Path("/sys/class/net").iterdir()} - {"lo"})
    if not interfaces:
        pytest.skip("keepalived takes no loopback interface, and there is no other")
    file.write_text(
        text.replace("interface eth0", f"interface {interfaces[0]}").replace("/etc/tandem-site/notify", str(notify))
    )
    check = subprocess.run(
        ["keepalived", f"--config-test={tmp_path}/problems", f"--use-file={file}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    problems = tmp_path / "problems"
    told = problems.read_text(encoding="utf-8") if problems.exists() else ""
    assert (check.returncode, told) == (0, ""), check.stderr
