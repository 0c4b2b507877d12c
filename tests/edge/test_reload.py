"""`tandem workers`, `drain`, `undrain` and `reload` against the running edge: nothing is lost, and nothing is half done."""

import json
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tandem import render
from tandem.cli import app
from tandem.workers import State
from tests.edge.endpoints import Dialog, Endpoint, establish
from tests.edge.world import DID, Change, Edge

NEW_DID = "+12025550188"


@dataclass(frozen=True)
class Call:
    """An answered call between the carrier and a worker."""

    edge: Edge
    near: Dialog
    """The carrier's side."""
    far: Dialog
    worker: Endpoint

    def arrives(self, dialog: Dialog, method: str) -> None:
        """A request within the dialog gets to the other side, and its 200 back."""
        other = self.worker if dialog is self.near else self.edge.carrier
        branch = dialog.send(method).branch
        request = other.wait(lambda m: m.is_request and m.method == method and m.call_id == dialog.call_id, method)
        other.reply(request, 200)
        dialog.phone.wait(lambda m: not m.is_request and branch in m["Via"] and m.status == 200, f"200 to {method}")


def answered_call(edge: Edge) -> Call:
    calling = edge.from_carrier()
    worker, invite = edge.first_worker(calling.call_id)
    near, far = establish(calling, worker, invite)
    return Call(edge, near, far, worker)


def tandem(edge: Edge, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(edge.folder / "config/tandem.yaml")])


def done(edge: Edge, *arguments: str) -> str:
    result = tandem(edge, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def reconfigure(edge: Edge, change: Change) -> None:
    """What an operator does in an editor."""
    edge.expected_errors.append("ongoing reload")  # of one that follows within a second, and waits
    file = edge.folder / "config/tandem.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def listed(edge: Edge) -> dict[str, dict[str, Any]]:
    lines = done(edge, "workers", "--json").splitlines()
    return {worker["name"]: worker for worker in map(json.loads, lines)}


def name_of(edge: Edge, worker: Endpoint) -> str:
    return f"worker-{edge.workers.index(worker) + 1}"


def other_than(edge: Edge, worker: Endpoint) -> Endpoint:
    return next(other for other in edge.workers if other is not worker)


def takers(edge: Edge, calls: int) -> list[Endpoint]:
    """The workers that get the next calls, each of which they refuse."""
    found = []
    for _ in range(calls):
        calling = edge.from_carrier()
        worker, invite = edge.first_worker(calling.call_id)
        worker.reply(invite, 486)
        calling.final()
        found.append(worker)
    return found


def site_files(edge: Edge) -> dict[str, str]:
    folder = edge.folder / "site/kamailio"
    return {str(path): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}


def hangs_up(call: Call) -> None:
    call.arrives(call.near, "BYE")


def third_worker(site: dict[str, Any]) -> None:
    net = site["edge"]["rpc"].rpartition(".")[0]
    site["workers"]["worker-3"] = {"address": f"{net}.13", "loopback": f"{net}.13", "weight": 200}


def test_workers_are_listed_with_state_calls_and_weight(edge: Edge):
    call = answered_call(edge)
    edge.workers[1].options_status = 503
    edge.until(lambda: listed(edge)["worker-2"]["state"] == "down", "worker-2 to be down")
    workers = listed(edge)
    assert workers[name_of(edge, call.worker)]["calls"] == 1
    assert workers["worker-1"] == {
        "name": "worker-1",
        "uri": f"sip:{edge.workers[0].host}",
        "state": "active",
        "alive": True,
        "calls": workers["worker-1"]["calls"],
        "max_calls": 150,
        "weight": 100,
    }
    table = done(edge, "workers")
    assert "worker-2" in table and "down" in table and edge.workers[1].host in table


def test_drained_worker_gets_no_calls_until_it_is_undrained(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)
    assert done(edge, "drain", name) == f"{name}: drained, 1 calls\n"
    assert set(takers(edge, 3)) == {other_than(edge, call.worker)}
    call.arrives(call.near, "INFO")
    call.arrives(call.far, "INFO")
    hangs_up(call)
    assert listed(edge)[name]["state"] == "drained"
    assert done(edge, "undrain", name) == f"{name}: active, 0 calls\n"
    assert set(takers(edge, 4)) == set(edge.workers)


@pytest.mark.parametrize("how", ["reload", "dispatcher.reload", "render", "restart"])
def test_drain_outlives(edge: Edge, how: str):
    done(edge, "drain", "worker-1")
    if how == "reload":
        reconfigure(edge, lambda site: site["workers"]["worker-1"].update(weight=300))
        done(edge, "reload")
    elif how == "dispatcher.reload":
        edge.rpc("dispatcher.reload")
    else:
        edge.stop()
        if how == "render":
            done(edge, "render", "--out", str(edge.folder / "site"))
        edge.start()
    assert listed(edge)["worker-1"]["state"] == "drained"
    assert set(takers(edge, 3)) == {edge.workers[1]}
    done(edge, "undrain", "worker-1")
    edge.stop()
    edge.start()
    assert listed(edge)["worker-1"]["state"] == "active"


def test_drain_waits_for_the_calls_to_end(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)
    waited = tandem(edge, "drain", name, "--wait", "0.1")
    assert (waited.exit_code, waited.output) == (1, f"{name}: drained, 1 calls\n")
    hangs_up(call)
    assert done(edge, "drain", name, "--wait", "5") == f"{name}: drained, 0 calls\n"


def test_draining_the_last_worker_is_told(edge: Edge):
    done(edge, "drain", "worker-1")
    result = tandem(edge, "drain", "worker-2")
    assert result.exit_code == 0
    assert "no worker takes new calls now" in result.output
    assert edge.from_carrier().final().status == 503


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_unknown_worker_is_an_error_that_names_those_there_are(edge: Edge, command: str):
    result = tandem(edge, command, "worker-9")
    assert result.exit_code == 1
    assert "no worker 'worker-9'; it has worker-1, worker-2" in result.output


@pytest.mark.parametrize("command", [["workers"], ["drain", "worker-1"], ["reload"]])
def test_edge_that_does_not_run_is_an_error(edge: Edge, command: list[str]):
    edge.stop()
    result = tandem(edge, *command)
    assert result.exit_code == 1
    assert "is it running on this machine?" in result.output


def test_worker_is_added_and_takes_its_share(edge: Edge):
    call = answered_call(edge)
    third = edge.party(13, 5080)
    reconfigure(edge, third_worker)
    said = done(edge, "reload")
    assert "+ 3 127." in said and "worker-3" in said
    assert listed(edge)[name_of(edge, call.worker)]["calls"] == 1
    calls = []
    for _ in range(3):
        calling = edge.from_carrier()
        edge.until(
            lambda wanted=calling: any(w.got("INVITE", wanted.call_id) for w in (*edge.workers, third)), "INVITE"
        )
        worker = next(w for w in (*edge.workers, third) if w.got("INVITE", calling.call_id))
        calls.append(worker)
        establish(calling, worker, worker.got("INVITE", calling.call_id)[0])
    # Of weight 200 beside 100 and 100, with one call on one of those: two of the next three.
    assert calls.count(third) == 2
    assert call.worker not in calls


def test_removed_worker_gets_no_calls_and_keeps_its_own_until_they_end(edge: Edge):
    call = answered_call(edge)
    name, address = name_of(edge, call.worker), call.worker.address
    reconfigure(edge, lambda site: site["workers"].pop(name))
    done(edge, "reload")
    workers = listed(edge)
    assert (workers[name]["state"], workers[name]["calls"]) == ("leaving", 1)
    assert set(takers(edge, 3)) == {other_than(edge, call.worker)}
    call.arrives(call.far, "INFO")
    call.arrives(call.near, "INFO")
    # It may still put its caller through.
    leg = call.worker.invite("2001", edge.at, headers=[("X-Tandem-Trunk", "pbx")])
    edge.pbx.reply(edge.pbx.request("INVITE", leg.call_id), 486)
    assert leg.final().status == 486
    edge.stop()
    edge.start()
    edge.rpc("htable.seti", "load", f"sip:{call.worker.host}", 1)  # what the restart forgot, for the list alone
    hangs_up(call)
    edge.rpc("htable.seti", "load", f"sip:{call.worker.host}", 0)
    done(edge, "reload")
    assert name not in listed(edge)
    assert address not in (edge.folder / "site/kamailio/address.list").read_text(encoding="utf-8")
    assert call.worker.ask("INVITE", edge.at, uri=f"sip:2001@{edge.at[0]}").reason == "unknown source"


def test_removed_worker_that_comes_back_still_counts_its_calls(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)
    kept: dict[str, Any] = {}
    reconfigure(edge, lambda site: kept.update(worker=site["workers"].pop(name)))
    done(edge, "reload")
    reconfigure(edge, lambda site: site["workers"].update({name: kept["worker"]}))
    done(edge, "reload")
    assert (listed(edge)[name]["state"], listed(edge)[name]["calls"]) == ("active", 1)
    hangs_up(call)
    assert listed(edge)[name]["calls"] == 0


def test_room_and_weight_of_a_worker_change_with_its_calls_up(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)
    reconfigure(edge, lambda site: site["workers"][name].update(max_calls=1))
    done(edge, "reload")
    assert set(takers(edge, 3)) == {other_than(edge, call.worker)}
    reconfigure(edge, lambda site: site["workers"][name].update(max_calls=10, weight=1000))
    done(edge, "reload")
    assert set(takers(edge, 3)) == {call.worker}


def test_worker_that_is_down_stays_down_over_a_reload(edge: Edge):
    edge.workers[0].options_status = None
    edge.until(lambda: listed(edge)["worker-1"]["state"] == "down", "worker-1 to be down")
    edge.rpc("dispatcher.set_state", "d", 2, f"sip:{edge.carrier.host}")
    reconfigure(edge, third_worker)
    edge.party(13, 5080)
    done(edge, "reload")
    assert {name: worker["state"] for name, worker in listed(edge).items()} == {
        "worker-1": "down",
        "worker-2": "active",
        "worker-3": "active",
    }
    states = {target["URI"]: target["FLAGS"] for target in edge.targets(2)}
    assert states[f"sip:{edge.carrier.host}"].startswith("D")


def test_numbers_trunks_and_sources_are_loaded(edge: Edge):
    def change(site: dict[str, Any]) -> None:
        site["numbers"][NEW_DID] = {"trunk": "third"}
        third = {"kind": "generic", "sources": [f"{edge.net}.41/32"], "gateways": [f"sip:{edge.net}.41:5060"]}
        site["trunks"] = {"third": third} | site["trunks"]

    third = edge.party(41)
    assert third.ask("INVITE", edge.at, uri=f"sip:{DID}@{edge.at[0]}").reason == "unknown source"
    reconfigure(edge, change)
    said = done(edge, "reload", "--dry-run")
    assert NEW_DID in said and said.endswith("nothing was changed\n")
    assert edge.from_carrier(NEW_DID).final().reason == "unknown number"
    done(edge, "reload")
    calling = edge.from_carrier(NEW_DID)
    establish(calling, third, third.request("INVITE", calling.call_id))
    assert edge.arrival(third.invite(DID, edge.at))["X-Tandem-Trunk"] == "third"


def test_rules_of_the_dial_policy_are_loaded_and_what_they_counted_stays(edge: Edge):
    def call(number: str) -> int:
        calling = edge.worker(1).invite(number, edge.at, headers=[("X-Tandem-Trunk", "carrier")])
        edge.until(lambda: bool(calling.replies(300) or edge.carrier.got("INVITE", calling.call_id)), "it to be judged")
        for invite in edge.carrier.got("INVITE", calling.call_id):
            edge.carrier.reply(invite, 486)
        return calling.final().status

    home = {"name": "home", "prefixes": ["+1"], "max_calls_per_hour": 1}
    always = {"times": ["daily 00:00-24:00"], "time_zone": "Asia/Tokyo"}
    assert (call("+442079460000"), call("+14155550199"), call("+14155550199")) == (403, 486, 486)
    reconfigure(edge, lambda site: site.update(policy={"rules": [home]}))
    assert "tables/rules" in done(edge, "reload")
    assert (call("+442079460000"), call("+14155550199"), call("+14155550199")) == (403, 486, 503)
    uk = {"name": "uk", "kinds": ["fixed_line"], "prefixes": ["+44"], "opens": ["international"]} | always
    reconfigure(edge, lambda site: site.update(policy={"rules": [uk, home]}))
    done(edge, "reload")
    assert (call("+442079460000"), call("+447400123456"), call("+14155550199")) == (486, 403, 503)


def test_reload_without_a_change_says_so(edge: Edge):
    assert done(edge, "reload").endswith(": loaded, 0 files changed\n")


Broken = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda site: site["workers"]["worker-1"].update(wieght=2), "is not a known key"),
        (lambda site: site["edge"].update(ringing_ms=60000), "needs a restart of Kamailio"),
        (lambda site: site["edge"]["listen"].append({"address": "127.0.0.1", "port": 5999}), "+ listen=udp:"),
    ],
)
def test_what_cannot_be_taken_over_changes_nothing(edge: Edge, change: Broken, told: str):
    before = site_files(edge)
    reconfigure(edge, lambda site: (change(site), site["numbers"].update({NEW_DID: {"agent": "reception"}})))  # type: ignore[func-returns-value]
    result = tandem(edge, "reload")
    assert result.exit_code == 1
    assert told in result.output
    assert site_files(edge) == before
    assert edge.from_carrier(NEW_DID).final().reason == "unknown number"


def test_what_kamailio_refuses_changes_nothing(edge: Edge, monkeypatch: pytest.MonkeyPatch):
    call = answered_call(edge)
    before = site_files(edge)
    edge.expected_errors.append("dispatcher|unable to resolve|could not")

    def change(site: dict[str, Any]) -> None:
        third_worker(site)
        site["numbers"][NEW_DID] = {"agent": "reception"}

    reconfigure(edge, change)
    # Kamailio is given a list that it cannot read, whatever it was that let it through.
    monkeypatch.setattr("tandem.render._fill", spoiled(render._fill, "dispatcher.list.j2"))
    result = tandem(edge, "reload")
    assert result.exit_code == 1
    assert "everything is as it was before" in result.output
    assert site_files(edge) == before
    assert edge.from_carrier(NEW_DID).final().reason == "unknown number"
    assert set(listed(edge)) == {"worker-1", "worker-2"}
    assert listed(edge)[name_of(edge, call.worker)]["calls"] == 1


def spoiled(fill: Callable[..., str], template: str) -> Callable[..., str]:
    """As ``fill``, but for one template, from which lines come that Kamailio cannot read."""

    def filled(templates: Path, name: str, values: Any) -> str:
        if name != template:
            return fill(templates, name, values)
        return "".join(f"1 nonsense-{worker.name} 8 1\n" for worker in values["workers"])

    return filled


def test_configuration_that_was_rendered_and_not_started_with_is_told(edge: Edge):
    site = edge.folder / "site/kamailio/site.cfg"
    later = site.stat().st_mtime + 60
    os.utime(site, (later, later))
    result = tandem(edge, "reload")
    assert result.exit_code == 1
    assert "was rendered after Kamailio started" in result.output


def test_worker_with_calls_does_not_change_its_name(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)
    reconfigure(edge, lambda site: site["workers"].update(renamed=site["workers"].pop(name)))
    result = tandem(edge, "reload")
    assert result.exit_code == 1
    assert f"{name} becomes renamed, but carries 1 calls" in result.output
    hangs_up(call)
    done(edge, "reload")
    assert set(listed(edge)) == {"renamed", name_of(edge, other_than(edge, call.worker))}


def test_address_of_a_worker_with_calls_is_not_given_to_another(edge: Edge):
    call = answered_call(edge)
    name = name_of(edge, call.worker)

    def change(site: dict[str, Any]) -> None:
        del site["workers"][name]
        site["trunks"]["pbx"]["sources"].append(f"{call.worker.address}/32")

    reconfigure(edge, change)
    result = tandem(edge, "reload")
    assert result.exit_code == 1
    assert f"{call.worker.address} becomes pbx, but carries 1 calls as {name}" in result.output


def test_commands_of_the_guide_run_as_written(edge: Edge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TANDEM_CONFIG", str(edge.folder / "config/tandem.yaml"))
    guide = (Path(__file__).parents[2] / "docs/workers.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    tandem (.+)$", guide, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert set(takers(edge, 4)) == set(edge.workers)


def test_guide_names_every_state():
    guide = (Path(__file__).parents[2] / "docs/workers.md").read_text(encoding="utf-8")
    for state in State:
        assert f"| `{state.value}` |" in guide
