"""A wrong configuration is told with file, line, what is wrong and what was expected, all of it at once."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tandem.settings import ConfigurationError, Settings, load
from tests.tandem.site_files import AGENT, SITE, change, write_site

SHIPPED = Path(__file__).parents[2] / "config/tandem.yaml"


def problems(path: Path, environment: dict[str, str] | None = None) -> list[str]:
    """Problems without the folder."""
    with pytest.raises(ConfigurationError) as caught:
        load(path, environment or {})
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_the_shipped_configuration_is_valid():
    settings = load(SHIPPED, {"TANDEM_EVENT_SOCKET_PASSWORD": "x"})
    assert set(settings.agents) == {"reception"}
    assert settings.model.name == "gpt-realtime-2.1"


def test_paths_count_from_the_file_and_have_no_dots_left(tmp_path):
    path = write_site(
        tmp_path / "config",
        {
            "records/url": "sqlite:///../run/tandem.db",
            "records/spool": "../run/spool",
            "edge/run_directory": "../run/kamailio",
        },
    )
    settings = load(path, {})
    assert settings.records.url == f"sqlite:///{tmp_path}/run/tandem.db"
    assert settings.records.spool == tmp_path / "run/spool"
    assert settings.edge.run_directory == tmp_path / "run/kamailio"


def test_absolute_paths_and_other_databases_stay_as_they_are(tmp_path):
    for url in ("sqlite:////var/lib/tandem/tandem.db", "postgresql+psycopg://tandem:p%40ss@db.example/tandem"):
        assert load(write_site(tmp_path, {"records/url": url}), {}).records.url == url


def test_a_missing_file_is_one_clear_line(tmp_path):
    assert problems(tmp_path / "tandem.yaml") == ["tandem.yaml: cannot be read: No such file or directory"]


WRONG = {
    "unknown section": (
        {"edgee": {}},
        "edgee",
        (
            "edgee: is not a known key; expected one of: destinations, dialler, edge, emergency, esl_app, freeswitch, media_fork, "
            "model, numbers, on_call, outbound, policy, recordings, records, ring_groups, routes, rtpengine, tenants, transfers, trunks, voicemail, workers"
        ),
    ),
    "unknown key of a section that may be left out": (
        {"edge/hep": {"collectr": "127.0.0.1:9060"}},
        "collectr",
        "edge.hep.collectr: is not a known key; expected one of: capture_id, collector",
    ),
    "unknown key": (
        {"edge/childern": 4},
        "childern",
        (
            "edge.childern: is not a known key; expected one of: children, cluster, domain, hep, listen, probe_seconds, "
            "provisional_only_ms, ringing_ms, rpc, run_directory, shared_memory_mb, silent_worker_ms, tls"
        ),
    ),
    "unknown key in a list": (
        {"edge/listen/0/prot": 5060},
        "prot",
        "edge.listen[0].prot: is not a known key; expected one of: address, advertise, port, transport",
    ),
    "unknown key by name": (
        {"workers/worker-1/rtp": {"frist": 5}},
        "frist",
        "workers.worker-1.rtp.frist: is not a known key; expected one of: first, last",
    ),
    "OPTIONS that lead to a ban": (
        {"trunks/twilio": {"kind": "twilio", "gateways": ["sip:example.pstn.twilio.com"], "keepalive_seconds": 14}},
        "twilio:",
        "trunks.twilio: keepalive_seconds is 14, for which a twilio trunk is banned; expected 0 or at least 15",
    ),
    "limits that a flood could use up the memory with": (
        {"edge/shared_memory_mb": 64, "trunks/carrier/calls_per_second_in": 200},
        "shared_memory_mb",
        (
            "edge.shared_memory_mb: 64 would not do for emergency calls in a flood of 201 calls a second, which "
            "calls_per_second_in allows the trunks together; expected at least 101, or less there"
        ),
    ),
    "bad CIDR": (
        {"trunks/carrier/sources": ["203.0.113.5/24"]},
        "203.0.113.5",
        (
            "trunks.carrier.sources[0]: '203.0.113.5/24' is not a network in CIDR form (203.0.113.5/24 has host bits set); "
            "expected e.g. 203.0.113.0/24"
        ),
    ),
    "everybody": (
        {"trunks/carrier/sources": ["0.0.0.0/0"]},
        "0.0.0.0/0",
        "trunks.carrier.sources[0]: '0.0.0.0/0' is everybody; expected the addresses that this peer signals from",
    ),
    "not E.164": (
        {"trunks/carrier/caller_ids": ["2025550100"]},
        "2025550100",
        "trunks.carrier.caller_ids[0]: '2025550100' is not E.164; expected a number in E.164 form, e.g. +12025550100",
    ),
    "too short for its country": (
        {"trunks/carrier/caller_ids": ["+120255"]},
        "+120255",
        (
            "trunks.carrier.caller_ids[0]: '+120255' is not a possible number for its country code; "
            "expected a number in E.164 form, e.g. +12025550100"
        ),
    ),
    "number as a key": (
        {"numbers/911": {"agent": "reception"}},
        "911':",
        "numbers.911: '911' is not E.164; expected a number in E.164 form, e.g. +12025550100",
    ),
    "destination that no agent may use": (
        {"destinations/support": {"description": "x", "dial": "2002", "trunk": "pbx"}},
        "support:",
        "destinations.support: no agent may use this destination; expected it in an agent's destinations, or as a fallback",
    ),
    "key that nobody could use": (
        {"trunks/pbx/context": "key"},
        "context:",
        "trunks.pbx.context: its key is fetched over the API, which is off; expected esl_app.api_token",
    ),
    "ring group that no agent may use": (
        {"ring_groups": {"team": {"description": "x", "members": ["sales"]}}},
        "team:",
        "ring_groups.team: no agent may use this ring group; expected it in an agent's destinations, or as a fallback",
    ),
    "ring group of nobody known": (
        {"ring_groups": {"team": {"description": "x", "members": ["sales", "support"]}}},
        "- support",
        "ring_groups.team.members[1]: no destination named 'support'; expected one of: sales",
    ),
    "ring group by REFER": (
        {"ring_groups": {"team": {"description": "x", "members": ["sales"], "transfer": "refer"}}},
        "transfer:",
        "ring_groups.team.transfer: is refer, but a peer cannot ring a group; expected bridge, replaces or warm",
    ),
    "emergency number as a destination": (
        {"destinations/sales/dial": "911"},
        "dial:",
        "destinations.sales.dial: 911 is an emergency number; no agent may dial it",
    ),
    "emergency number behind the digit for an outside line": (
        {"destinations/sales/dial": "9911"},
        "dial:",
        "destinations.sales.dial: 9911 is an emergency number; no agent may dial it",
    ),
    "unknown agent": (
        {"numbers/+12025550100/agent": "receptoin"},
        "receptoin",
        "numbers.+12025550100.agent: no agent named 'receptoin'; expected one of: reception",
    ),
    "unknown trunk": (
        {"numbers/+12025550101/trunk": "pbxx"},
        "pbxx",
        "numbers.+12025550101.trunk: no trunk named 'pbxx'; expected one of: carrier, pbx",
    ),
    "unknown fallback": (
        {"numbers/+12025550100/fallback": "nobody"},
        "fallback",
        "numbers.+12025550100.fallback: no destination named 'nobody'; expected one of: regret, sales, voicemail",
    ),
    "endpoint twice": (
        {"model/alternatives": [{"url": "wss://api.openai.com/v1/realtime", "name": "gpt-realtime-2.1"}]},
        "model",
        "model: has gpt-realtime-2.1 at wss://api.openai.com/v1/realtime twice; expected other endpoints in alternatives",
    ),
    "agent and trunk": (
        {"numbers/+12025550101/agent": "reception"},
        "+12025550101",
        "numbers.+12025550101: needs exactly one of agent, trunk, destination",
    ),
    "trunk without gateways": (
        {"trunks/pbx/gateways": []},
        "trunk: pbx",
        "numbers.+12025550101.trunk: trunk 'pbx' has no gateways to send to; expected at least one there",
    ),
    "nowhere for emergency calls": (
        {"emergency/carriers": []},
        "carriers",
        "emergency.carriers: is empty, so emergency calls from pbx could not go out; expected a trunk with gateways",
    ),
    "one address, two trunks": (
        {"trunks/pbx/sources": ["127.0.0.0/24"]},
        "127.0.0.0/24",
        (
            "trunks.pbx.sources[0]: 127.0.0.0/24 overlaps 127.0.0.21/32 of trunk 'carrier'; "
            "expected each address in one trunk only"
        ),
    ),
    "two workers in one place": (
        {"workers/worker-2": {"address": "127.0.0.11"}},
        "worker-2",
        "workers.worker-2: has the address and sip_port of worker-1",
    ),
    "two workers on one machine": (
        {"workers/worker-2": {"address": "127.0.0.11", "sip_port": 5082}, "workers/worker-1/loopback": "127.0.0.1"},
        "worker-2",
        "workers.worker-2.loopback: shares a machine with worker-1; expected a loopback of its own, e.g. 127.0.0.2",
    ),
    "anchored without an rtpengine": (
        {"trunks/carrier/media": "anchored"},
        "anchored",
        "trunks.carrier.media: there is no rtpengine to anchor it; expected at least one under rtpengine",
    ),
    "rtpengine that anybody could command": (
        {"rtpengine": {"media-1": {"control": "8.8.8.8:2223", "public": "8.8.8.8", "private": "10.0.0.9"}}},
        "control",
        "rtpengine.media-1.control: '8.8.8.8:2223' is not ADDRESS:PORT on loopback or a private IPv4 network; "
        "expected e.g. 127.0.0.1:2223",
    ),
    "two rtpengines in one place": (
        {
            "rtpengine": {
                "media-1": {"public": "8.8.8.8", "private": "10.0.0.9"},
                "media-2": {"public": "8.8.8.9", "private": "10.0.0.10", "metrics": "127.0.0.1:2226"},
            }
        },
        "media-2",
        "rtpengine.media-2.control: 127.0.0.1:2223 is media-1's already; expected its own",
    ),
    "two rtpengines of one machine with one place for metrics": (
        {
            "rtpengine": {
                "media-1": {"public": "8.8.8.8", "private": "10.0.0.9"},
                "media-2": {"control": "127.0.0.1:2233", "public": "8.8.8.9", "private": "10.0.0.10"},
            }
        },
        "media-2",
        "rtpengine.media-2.metrics: 127.0.0.1:2225 is media-1's already; expected its own",
    ),
    "rtpengine on the ports of a worker": (
        {
            "rtpengine": {
                "media-1": {"public": "8.8.8.8", "private": "127.0.0.11", "ports": {"first": 29000, "last": 31000}}
            }
        },
        "ports",
        "rtpengine.media-1.ports: ports 29000 to 31000 of 127.0.0.11 are also worker 'worker-1''s; expected others",
    ),
    "two rtpengines on one port": (
        {
            "rtpengine": {
                "media-1": {"public": "8.8.8.8", "private": "10.0.0.9"},
                "media-2": {
                    "control": "127.0.0.2:2223",
                    "public": "8.8.8.8",
                    "private": "10.0.0.10",
                    "metrics": "127.0.0.2:2225",
                },
            }
        },
        "media-2",
        "rtpengine.media-2.ports: ports 30000 to 39998 of 8.8.8.8 are also rtpengine 'media-1''s; expected others",
    ),
    "two processes on one port": (
        {"media_fork": {"http_port": 8084}},
        "http_port",
        "media_fork.http_port: port 8084 is esl_app.port's already; expected a port of its own",
    ),
    "loopback that is none": (
        {"workers/worker-1/loopback": "10.0.0.1"},
        "worker-1",
        "workers.worker-1: loopback must be in 127.0.0.0/8 or ::1, not 10.0.0.1",
    ),
    "out of range": (
        {"edge/probe_seconds": 0},
        "probe_seconds",
        "edge.probe_seconds: expected greater than or equal to 1",
    ),
    "wrong word": (
        {"trunks/pbx/kind": "PBX"},
        "PBX",
        "trunks.pbx.kind: expected 'twilio', 'bandwidth', 'generic' or 'pbx'",
    ),
    "not a mapping": ({"policy": ["x"]}, "policy", "policy: expected a mapping of keys"),
    "missing": (
        {"freeswitch/password": None, "freeswitch/event_socket_port": 8021},
        "freeswitch",
        "freeswitch.password: is missing",
    ),
    "empty password": (
        {"freeswitch/password": ""},
        "password",
        "freeswitch.password: expected 1 to 128 printable ASCII characters without a space",
    ),
    "URI with a user": (
        {"trunks/pbx/gateways": ["sip:me@127.0.0.31"]},
        "sip:me",
        (
            "trunks.pbx.gateways[0]: 'sip:me@127.0.0.31' cannot be used; expected sip:HOST, sip:HOST:PORT or "
            "sip:HOST:PORT;transport=tcp (or tls), without a user part"
        ),
    ),
    "other database": (
        {"records/url": "mysql://tandem:s3cret@db/tandem"},
        "mysql",
        (
            "records.url: 'mysql' is no database known here; expected sqlite:///PATH or "
            "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        ),
    ),
    "country nobody knows": (
        {"policy": {"home_country": "XX"}},
        "home_country",
        "policy.home_country: nothing is known about dialling in 'XX'; expected an ISO 3166 country code, e.g. US",
    ),
    "gateway at no address": (
        {"trunks/pbx/gateways": ["sip:999.1.1.1:5060"]},
        "999.1.1.1",
        "trunks.pbx.gateways[0]: '999.1.1.1' is not an IP address; expected e.g. 203.0.113.10",
    ),
    "gateway at no IPv6 address": (
        {"trunks/pbx/gateways": ["sip:[::1::2]:5060"]},
        "::1::2",
        "trunks.pbx.gateways[0]: '::1::2' is not an IP address; expected e.g. 203.0.113.10",
    ),
    "gateway's port out of range": (
        {"trunks/pbx/gateways": ["sip:127.0.0.31:65536;transport=tcp"]},
        "65536",
        "trunks.pbx.gateways[0]: 'sip:127.0.0.31:65536;transport=tcp' has port 65536; expected 1 to 65535",
    ),
    "host that looks like an address": (
        {"trunks/carrier/domain": "300.0.0.1"},
        "300.0.0.1",
        "trunks.carrier.domain: '300.0.0.1' is not an IP address; expected e.g. 203.0.113.10",
    ),
    "edge that listens everywhere": (
        {"edge/listen/0/address": "0.0.0.0"},
        "0.0.0.0",
        (
            "edge.listen[0].address: '0.0.0.0' is every address of a machine; "
            "expected one that others reach, e.g. 203.0.113.10"
        ),
    ),
    "edge that advertises every address": (
        {"edge/listen/0/advertise": "::"},
        "advertise",
        (
            "edge.listen[0].advertise: '::' is every address of a machine; "
            "expected one that others reach, e.g. 203.0.113.10"
        ),
    ),
    "worker at every address": (
        {"workers/worker-1/address": "0.0.0.0"},
        "0.0.0.0",
        (
            "workers.worker-1.address: '0.0.0.0' is every address of a machine; "
            "expected one that others reach, e.g. 203.0.113.10"
        ),
    ),
    "trunk with a worker in it": (
        {"trunks/pbx/sources": ["127.0.0.8/29"]},
        "127.0.0.8/29",
        (
            "trunks.pbx.sources[0]: 127.0.0.8/29 holds 127.0.0.11, which is worker 'worker-1'; "
            "expected the peer's own addresses"
        ),
    ),
    "trunk with the edge in it": (
        {"trunks/pbx/sources": ["127.0.0.1/32"]},
        "127.0.0.1/32",
        (
            "trunks.pbx.sources[0]: 127.0.0.1/32 holds 127.0.0.1, which is the edge itself; "
            "expected the peer's own addresses"
        ),
    ),
    "trunk with another edge in it": (
        {
            "trunks/pbx/sources": ["10.0.0.0/8"],
            "edge/cluster": {"address": "192.168.0.2:5062", "peers": ["10.0.0.3:5062"]},
        },
        "10.0.0.0/8",
        ("trunks.pbx.sources[0]: 10.0.0.0/8 holds 10.0.0.3, which is another edge; expected the peer's own addresses"),
    ),
    "cluster at a shared address": (
        {"edge/cluster": {"address": "127.0.0.1:5062", "peers": ["10.0.0.3:5062"]}},
        "127.0.0.1:5062",
        (
            "edge.cluster.address: 127.0.0.1:5062 is on an address of edge.listen, which the edges share; "
            "expected this edge's own"
        ),
    ),
    "edge that is its own peer": (
        {"edge/cluster": {"address": "10.0.0.2:5062", "peers": ["10.0.0.2:5062"]}},
        "- 10.0.0.2:5062",
        "edge.cluster.peers[0]: 10.0.0.2:5062 is this edge; expected the others",
    ),
    "cluster in public": (
        {"edge/cluster": {"address": "12.0.0.2:5062", "peers": ["10.0.0.2:5062"]}},
        "12.0.0.2:5062",
        (
            "edge.cluster.address: '12.0.0.2:5062' is not ADDRESS:PORT on loopback or a private IPv4 network; "
            "expected e.g. 127.0.0.1:2223"
        ),
    ),
    "emergency calls back to the PBX": (
        {"emergency/carriers": ["carrier", "pbx"]},
        "- pbx",
        "emergency.carriers[1]: trunk 'pbx' is a pbx, whose emergency calls would come back to it; expected a carrier",
    ),
    "worker by TCP where the edge has none": (
        {"workers/worker-1/transport": "tcp"},
        "transport: tcp",
        "workers.worker-1.transport: the edge has no TCP socket to reach it from; expected one in edge.listen",
    ),
    "agents in the file": ({"agents": {}}, "agents", "agents: is not a key; agents are files, agents/NAME.yaml"),
    "RPC for the world": (
        {"edge/rpc": "0.0.0.0:5067"},
        "rpc",
        "edge.rpc: '0.0.0.0:5067' is not ADDRESS:PORT on loopback; expected e.g. 127.0.0.1:5067",
    ),
}


@pytest.mark.parametrize(
    ("ladder", "expected"),
    [
        (["sales", "voicemail", "sales"], "fallback[2]: 'sales' stands there twice; expected each rung once"),
        (["regret", "sales"], "fallback[1]: is never reached: the call ends with 'regret'; expected that last"),
        (
            ["voicemail", "nobody"],
            "fallback[1]: no destination named 'nobody'; expected one of: regret, sales, voicemail",
        ),
    ],
)
def test_what_is_wrong_in_a_ladder_names_the_rung(tmp_path, ladder, expected):
    path = write_site(tmp_path, {"numbers/+12025550100/fallback": ladder})
    assert any(problem.endswith(f"numbers.+12025550100.{expected}") for problem in problems(path))


@pytest.mark.parametrize("ladder", ["sales", ["sales"], ["sales", "voicemail", "regret"], [], None])
def test_a_ladder_is_a_list_or_one_rung(tmp_path, ladder):
    path = write_site(tmp_path, {"numbers/+12025550100/fallback": ladder})
    settings = load(path, {})
    assert settings.numbers["+12025550100"].fallback == (["sales"] if ladder == "sales" else ladder or [])


@pytest.mark.parametrize(("changes", "on_line", "expected"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_with_its_line_and_what_was_expected(tmp_path, changes, on_line, expected):
    path = write_site(tmp_path, changes)
    assert f"tandem.yaml:{line_of(path, on_line)}: {expected}" in problems(path)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"team": ["sales", "sales"]}, "ring_groups.team.members[1]: sales is a member twice; expected each once"),
        ({"sales": ["sales"]}, "ring_groups.sales: is the name of a destination as well; expected another name"),
        (
            {"voicemail": ["sales"]},
            "ring_groups.voicemail: 'voicemail' is a built-in fallback; expected another name",
        ),
    ],
)
def test_a_ring_group_has_a_name_of_its_own_and_each_member_once(tmp_path, groups, expected):
    ring_groups = {name: {"description": "x", "members": members} for name, members in groups.items()}
    path = write_site(tmp_path, {"ring_groups": ring_groups}, {"destinations": ["sales", *groups]})
    assert [problem.partition(": ")[2] for problem in problems(path)] == [expected]


WRONG_AGENT = {
    "unknown key": (
        {"voicee": "marin"},
        "voicee",
        (
            "voicee: is not a known key; expected one of: briefing, collect, destinations, free_numbers, greeting, holds, instructions, language, "
            "noise_reduction, recording, safe_instructions, sends_digits, tools, transcription, turn_detection, voice"
        ),
    ),
    "unknown key of the chosen kind": (
        {"turn_detection": {"type": "semantic_vad", "threshold": 0.5}},
        "threshold",
        "turn_detection.threshold: is not a known key; expected one of: eagerness, type",
    ),
    "unknown kind": (
        {"turn_detection": {"type": "vad"}},
        "turn_detection",
        "turn_detection: Input tag 'vad' found using 'type' does not match any of the expected tags: 'server_vad', 'semantic_vad'",
    ),
    "unknown destination": (
        {"destinations": ["sales", "nobody"]},
        "nobody",
        "destinations[1]: no destination named 'nobody'; expected one of: sales",
    ),
    "empty greeting": ({"greeting": ""}, "greeting", "greeting: is empty; expected text"),
    "not text": (
        {"greeting": True},
        "greeting",
        "greeting: expected text (in quotes, where it looks like something else)",
    ),
    "tool named like a built-in one": (
        {"tools": [{"name": "transfer", "description": "x", "url": "http://127.0.0.1/"}]},
        "name: transfer",
        "tools[0].name: tool 'transfer' is built in; expected another name",
    ),
    "arguments that are no object": (
        {
            "tools": [
                {"name": "look_up", "description": "x", "url": "http://127.0.0.1/", "parameters": {"type": "string"}}
            ]
        },
        "parameters",
        "tools[0].parameters: a model gives arguments by name; expected a JSON Schema with type: object",
    ),
}


@pytest.mark.parametrize(("changes", "on_line", "expected"), WRONG_AGENT.values(), ids=WRONG_AGENT.keys())
def test_what_is_wrong_in_an_agent_names_the_agents_file(tmp_path, changes, on_line, expected):
    path = write_site(tmp_path, agent=changes)
    line = line_of(tmp_path / "agents/reception.yaml", on_line)
    assert f"agents/reception.yaml:{line}: {expected}" in problems(path)


def test_an_agents_file_name_must_be_a_name(tmp_path):
    path = write_site(tmp_path)
    (tmp_path / "agents/Front Desk.yaml").write_text(yaml.safe_dump(AGENT))
    (problem,) = problems(path)
    assert problem.startswith(
        "agents/Front Desk.yaml: file name: 'Front Desk' cannot be used; expected a name of small"
    )


def test_all_problems_of_all_files_are_told_at_once_in_order(tmp_path):
    path = write_site(
        tmp_path,
        {"edge/childern": 4, "trunks/carrier/sources": ["x"], "numbers/+12025550101/trunk": "nobody"},
        {"voicee": "marin", "greeting": ""},
    )
    found = problems(path)
    assert [problem.split(": ")[1] for problem in found] == [
        "greeting",
        "voicee",
        "edge.childern",
        "trunks.carrier.sources[0]",
        "numbers.+12025550101.trunk",
    ]


def test_a_file_that_is_no_yaml_is_told_alone(tmp_path):
    path = write_site(tmp_path)
    path.write_text("edge:\n  listen: [\ntrunks]: {}\n")
    assert problems(path) == ["tandem.yaml:3: not YAML: mapping values are not allowed here"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("edge: {}\nedge: {}\n", "tandem.yaml:2: edge: is given twice; keep one"),
        ("- edge\n", "tandem.yaml:1: expected a mapping of sections"),
        ("", "tandem.yaml:1: edge: is missing"),
        ("a: \x07\n", "tandem.yaml:1: not YAML: character U+0007 is not allowed"),
        ("a: &a [*a]\n", "tandem.yaml: is nested too deeply"),
        ("[" * 1000, "tandem.yaml: is nested too deeply"),
        ("? [1]\n: 2\n", "tandem.yaml:1: has a key that is not plain text"),
        (
            "a: !!python/name:os.system\n",
            "tandem.yaml:1: a: tag 'tag:yaml.org,2002:python/name:os.system' cannot be used here; leave it out",
        ),
    ],
    ids=["twice", "list", "empty", "control", "recursive", "deep", "key", "tag"],
)
def test_yaml_that_is_no_configuration_is_told(tmp_path, text, expected):
    path = write_site(tmp_path)
    path.write_text(text)
    assert expected in problems(path)


def test_a_file_with_endless_aliases_is_told(tmp_path):
    path = write_site(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path.write_text("\n".join(lines))
    assert problems(path) == ["tandem.yaml: has more than 100000 values"]


def test_bytes_that_are_no_text_are_told(tmp_path):
    path = write_site(tmp_path)
    path.write_bytes(b"edge: \xff\n")
    assert problems(path) == ["tandem.yaml: is not UTF-8 text: invalid start byte at byte 6"]


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = write_site(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    load(path, {})


YAML_1_1_TRAPS = """
numbers:
  +12025550100: {agent: reception, fallback: voicemail}
  "+12025550101": {trunk: pbx}
destinations:
  sales: {description: no, dial: 0912, trunk: pbx}
  night: {description: 12:30, dial: 010, trunk: pbx}
"""


def test_yaml_1_1_does_not_change_what_was_written(tmp_path):
    path = write_site(tmp_path, {"numbers": None, "destinations": None}, {"destinations": ["sales", "night"]})
    path.write_text(path.read_text() + YAML_1_1_TRAPS)
    settings = load(path, {})
    assert settings.destinations["sales"].description == "no"
    assert settings.destinations["sales"].dial == "0912"
    assert settings.destinations["night"].description == "12:30"
    assert settings.destinations["night"].dial == "010"
    assert set(settings.numbers) == {"+12025550100", "+12025550101"}


def test_numbers_without_quotes_are_taken_as_text(tmp_path):
    settings = load(write_site(tmp_path, {"destinations/sales/dial": 2001, "emergency/numbers": [911, 933]}), {})
    assert settings.destinations["sales"].dial == "2001"
    assert settings.emergency.numbers == ["911", "933"]


def test_anchors_and_merges_keep_their_own_lines(tmp_path):
    path = write_site(tmp_path, {"workers": None})
    workers = (
        "workers:\n"
        "  worker-1: &cell {address: 127.0.0.11, loopback: 127.0.0.11, max_calls: 7}\n"
        "  worker-2:\n"
        "    <<: *cell\n"
        "    address: 127.0.0.12\n"
    )
    path.write_text(path.read_text() + workers)
    settings = load(path, {})
    assert (settings.workers["worker-2"].address, settings.workers["worker-2"].max_calls) == ("127.0.0.12", 7)
    path.write_text(path.read_text().replace("address: 127.0.0.12", "address: worker-2.example"))
    expected = (
        f"tandem.yaml:{line_of(path, 'worker-2.example')}: workers.worker-2.address: 'worker-2.example' is not an IP"
    )
    assert problems(path)[0].startswith(expected)


# Secrets and the environment


def test_a_secret_comes_from_the_environment_and_is_never_shown(tmp_path):
    path = write_site(
        tmp_path,
        {
            "freeswitch/password": "${EVENT_SOCKET}",
            "model": {"key": "${OPENAI_API_KEY:-}"},
            "records/url": "postgresql+psycopg://tandem:${DATABASE_PASSWORD}@db.example/tandem",
        },
    )
    settings = load(path, {"EVENT_SOCKET": "s3cret-1", "OPENAI_API_KEY": "s3cret-2", "DATABASE_PASSWORD": "s3cret-3"})
    assert settings.freeswitch.password.get_secret_value() == "s3cret-1"
    assert settings.model.key.get_secret_value() == "s3cret-2"
    assert "s3cret-3" in settings.records.url
    assert "s3cret" not in repr(settings)


def test_a_variable_that_is_not_set_is_told_once_with_its_line(tmp_path):
    path = write_site(tmp_path, {"freeswitch/password": "${EVENT_SOCKET}"})
    assert problems(path) == [
        (
            f"tandem.yaml:{line_of(path, 'EVENT_SOCKET')}: freeswitch.password: environment variable EVENT_SOCKET is not set; "
            "set it or write ${EVENT_SOCKET:-default}"
        )
    ]


def test_a_default_is_used_where_the_variable_is_not_set(tmp_path):
    path = write_site(tmp_path, {"edge/children": "${CHILDREN:-3}", "edge/domain": "${NAME:-a}.example"})
    assert load(path, {}).edge.children == 3
    assert load(path, {"CHILDREN": "9", "NAME": "b"}).edge.children == 9
    assert load(path, {"NAME": "b"}).edge.domain == "b.example"


def test_a_doubled_dollar_is_text(tmp_path):
    assert (
        load(write_site(tmp_path, agent={"greeting": "Say $${NAME}"}), {}).agents["reception"].greeting == "Say ${NAME}"
    )


def test_a_secret_comes_from_a_file_beside_the_configuration(tmp_path):
    path = write_site(tmp_path, {"freeswitch/password": {"file": "password"}})
    (tmp_path / "password").write_text("s3cret\n")
    assert load(path, {}).freeswitch.password == SecretStr("s3cret")


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ({"file": "none"}, "secret file {folder}/none cannot be read: No such file or directory"),
        ({"file": "empty"}, "secret file {folder}/empty is empty"),
        ({"flie": "x"}, "expected text, ${{NAME}} for an environment variable, or {{file: PATH}}"),
        (["x"], "expected text, ${{NAME}} for an environment variable, or {{file: PATH}}"),
    ],
    ids=["missing", "empty", "misspelt", "list"],
)
def test_a_secret_that_cannot_be_had_is_told(tmp_path, secret, expected):
    (tmp_path / "empty").write_text("\n")
    path = write_site(tmp_path, {"freeswitch/password": secret})
    line = line_of(path, "password")
    assert problems(path) == [f"tandem.yaml:{line}: freeswitch.password: {expected.format(folder=tmp_path)}"]


def test_an_invalid_secret_is_not_repeated_in_the_problem(tmp_path):
    path = write_site(
        tmp_path,
        {
            "freeswitch/password": "s3cret with spaces",
            "records/url": "oracle://tandem:s3cret@db/x",
            "model": {"key": ["s3cret"]},
        },
    )
    assert len(problems(path)) == 3
    assert "s3cret" not in "".join(problems(path))


KEY = "AGE-SECRET-KEY-1R0V7TQF2M7PJUZMFVP8X07NFK5807MVGQK284KZJKF45VH2GFGSQ50WYKW"


def test_recordings_need_a_key_and_the_problem_stands_where_they_are_asked_for(tmp_path):
    always = {"recording": {"mode": "always"}}
    told = (
        "agents/reception.yaml:{line}: recording.mode: there is no key to encrypt with; expected recordings.recipients"
        " in tandem.yaml (`tandem recording key`)"
    )
    path = write_site(tmp_path, agent=always)
    assert problems(path) == [told.format(line=line_of(tmp_path / "agents/reception.yaml", "mode"))]
    (tmp_path / "key").write_text(f"{KEY}\n")
    settings = load(write_site(tmp_path, {"recordings": {"identity": {"file": "key"}}}, always), {})
    assert settings.recordings.folder == tmp_path / "recordings"


@pytest.mark.parametrize(
    ("changes", "agent", "expected"),
    [
        (
            {"recordings": {"recipients": ["age1nonsense"]}},
            {},
            "recordings.recipients[0]: 'age1nonsense' is no public key of age (invalid Bech32 encoding); expected age1...",
        ),
        (
            {"recordings": {"identity": "AGE-SECRET-KEY-1NONSENSE"}},
            {},
            "recordings.identity: is no secret key of age (invalid Bech32 encoding); expected AGE-SECRET-KEY-1...",
        ),
        (
            {},
            {"recording": {"mode": "off", "format": "opus", "consent": "answer"}},
            "recording: mode is off, so consent, format mean nothing; expected mode: always or mode: on_demand",
        ),
        (
            {},
            {"recording": {"announcement": "../x.wav"}},
            "recording.announcement: '../x.wav' cannot be used; expected a WAV file's name in freeswitch.prompts",
        ),
        (
            {"esl_app": {"api_token": "short"}},
            {},
            "esl_app.api_token: expected 16 to 256 letters, digits and . _ ~ + / = -, ",
        ),
        ({"esl_app": {"api_port": 8084}}, {}, "esl_app.api_port: port 8084 is esl_app.port's already"),
    ],
    ids=["recipient", "identity", "off", "announcement", "token", "port"],
)
def test_what_is_wrong_with_recordings_and_the_api_is_told(tmp_path, changes, agent, expected):
    [problem] = problems(write_site(tmp_path, changes, agent))
    assert expected in problem


PIN = {"name": "pin", "description": "their PIN"}


@pytest.mark.parametrize(
    ("collect", "expected"),
    [
        ([PIN | {"min_digits": 5, "max_digits": 4}], "collect[0]: min_digits 5 is more than max_digits 4"),
        (
            [PIN | {"masked": False, "sink": {"url": "https://vault.example/"}}],
            "collect[0]: what goes to a sink is secret; expected masked: true",
        ),
        ([PIN, PIN], "collect[1].name: 'pin' is given twice; expected another name"),
        (
            [PIN | {"sink": {"url": "vault"}}],
            "collect[0].sink.url: 'vault' cannot be used; expected http:// or https:// and",
        ),
    ],
    ids=["bounds", "unmasked secret", "twice", "no URL"],
)
def test_what_is_wrong_with_what_callers_key_in_is_told(tmp_path, collect, expected):
    [problem] = problems(write_site(tmp_path, agent={"collect": collect}))
    assert expected in problem


# Whatever the files hold

YAML_PIECES = st.sampled_from(
    [
        *(
            "edge",
            "trunks",
            ":",
            " ",
            "\n",
            "\n  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "&a ",
            "*a",
            "<<",
            "!!int ",
            "${",
            "'",
            '"',
        ),
        *("911", "+1", "1.5", "true", "null", "|", ">", "#", "%", "@", "? ", "---\n", "\t", "\ufeff", "\x85", "é", "~"),
    ]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.lists(YAML_PIECES, max_size=40).map("".join) | st.text(max_size=200))
@example(text="a: !!int x")
@example(text="a: 1e999999")
@example(text="!!float 1_0:")
@example(text="=")
def test_any_text_is_a_configuration_or_a_configuration_error(folder, text):
    path = write_site(folder)
    for file in (path, folder / "agents/reception.yaml"):
        original = file.read_text()
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigurationError) as caught:
            load(file if file == path else path, {})
        assert all(problem.message and "\n" not in str(problem) for problem in caught.value.problems)
        file.write_text(original)


PLACES = [
    ["edge"], ["edge", "listen"], ["edge", "listen", "0"], ["edge", "listen", "0", "address"], ["trunks"],
    ["trunks", "carrier"], ["trunks", "carrier", "sources"], ["trunks", "carrier", "gateways"], ["numbers"],
    ["numbers", "+12025550100"], ["numbers", "+12025550100", "agent"], ["destinations"], ["destinations", "sales"],
    ["destinations", "sales", "dial"], ["emergency"], ["emergency", "carriers"], ["workers"], ["workers", "worker-1"],
    ["workers", "worker-1", "rtp"], ["freeswitch"], ["freeswitch", "password"], ["records"], ["records", "url"], ["model"],
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_in_any_place_is_a_configuration_or_a_configuration_error(folder, place, value):
    data = yaml.safe_load(yaml.safe_dump(SITE))
    path = write_site(folder)
    change(data, place, value if value is not None else "~")
    path.write_text(yaml.safe_dump(data))
    try:
        assert isinstance(load(path, {}), Settings)
    except ConfigurationError as error:
        assert error.problems
        assert all(problem.line > 0 for problem in error.problems)
