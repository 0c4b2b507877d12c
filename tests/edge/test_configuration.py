"""The files: Kamailio accepts them, names in them exist, and they are written whole, the same each time."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem import edge as edge_facts
from tandem.render import RenderError, module_folder, render
from tandem.route import REFUSAL_STATUS, Refusal
from tandem.settings import Settings
from tandem.shipped import shipped
from tests.edge.world import DID, Edge, MakeEdge, load_site

PARTS = sorted(shipped("kamailio").glob("*.cfg"), key=lambda part: (part.name != "kamailio.cfg", part.name))
KAMAILIO_CFG = "\n".join(part.read_text(encoding="utf-8") for part in PARTS)
"""kamailio.cfg and the parts that it includes."""

TABLES = sorted({*(table.stem for table in shipped("kamailio/tables").glob("*.j2")), "drained"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_site("127.99.99", tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.skipif(not shutil.which("kamailio"), reason="kamailio is not installed")
def test_kamailio_accepts_the_configuration(settings: Settings, tmp_path: Path):
    render(settings, tmp_path / "site")
    check = subprocess.run(
        ["kamailio", "-c", "-f", str(tmp_path / "site/kamailio/kamailio.cfg")],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert check.returncode == 0, check.stderr
    assert "config file ok" in check.stderr + check.stdout


def test_same_settings_make_the_same_files(settings: Settings, tmp_path: Path):
    out = tmp_path / "site"
    render(settings, out)
    first = files(out)
    render(settings, out)
    assert files(out) == first
    assert set(first) == {
        "prometheus.json",
        *(
            f"kamailio/{name}"
            for name in ("site.cfg", "secret.cfg", "peers.cfg", "tls.cfg", "dispatcher.list", "address.list")
        ),
        *(f"kamailio/{part.name}" for part in PARTS),
        *(f"kamailio/tables/{name}" for name in TABLES),
        *(
            f"freeswitch/worker-{number}/{name}.xml"
            for number in (1, 2)
            for name in ("freeswitch", "modules", "event_socket", "sofia", "dialplan")
        ),
    }


def test_only_the_files_with_secrets_have_them_and_are_their_owners_alone(tmp_path: Path):
    def change(site: dict[str, Any]) -> None:
        site["trunks"]["pbx"]["challenge"] = {"username": "pbx", "password": "secret-of-the-pbx"}
        site["trunks"]["carrier"]["credentials"] = {"username": "tandem", "password": "secret-of-ours:\\;"}

    settings = load_site("127.99.99", tmp_path, change)
    out = tmp_path / "site"
    umask = os.umask(0)
    try:
        render(settings, out)
    finally:
        os.umask(umask)
    hash_of_the_pbx = hashlib.md5(b"pbx:tandem.invalid:secret-of-the-pbx").hexdigest().encode()
    secrets = (b"test-event-socket", edge_facts.route_key(settings).encode(), hash_of_the_pbx, b"secret-of")
    holders = {name for name, content in files(out).items() if any(secret in content for secret in secrets)}
    assert holders == {
        "kamailio/secret.cfg",
        "kamailio/tables/challenges",
        "kamailio/tables/credentials",
        *(f"freeswitch/worker-{number}/event_socket.xml" for number in (1, 2)),
    }
    assert {stat.S_IMODE((out / name).stat().st_mode) for name in holders} == {0o600}
    others = {stat.S_IMODE((out / name).stat().st_mode) for name in files(out) if name not in holders}
    assert others == {0o644}


def test_file_that_cannot_be_replaced_keeps_the_old_and_leaves_nothing_behind(settings: Settings, tmp_path: Path):
    out = tmp_path / "site"
    (out / "kamailio/site.cfg").mkdir(parents=True)
    with pytest.raises(OSError, match=r"site\.cfg"):
        render(settings, out)
    assert not list((out / "kamailio").glob(".*"))


def test_path_that_kamailio_cannot_be_told_is_an_error(settings: Settings, tmp_path: Path):
    with pytest.raises(RenderError, match="expected one without"):
        render(settings, tmp_path / "si!te")


def test_freeswitch_without_modules_is_an_error(settings: Settings, tmp_path: Path):
    with pytest.raises(RenderError, match="no FreeSWITCH modules under"):
        render(settings, tmp_path / "site", tmp_path)


@pytest.mark.parametrize("layout", ["mod", "lib/freeswitch/mod", "lib/x86_64-linux-gnu/freeswitch/mod"])
def test_modules_of_freeswitch_are_found(tmp_path: Path, layout: str):
    (tmp_path / layout).mkdir(parents=True)
    (tmp_path / layout / "mod_sofia.so").touch()
    assert module_folder(tmp_path) == tmp_path / layout


def test_every_cause_has_a_counter_and_a_name():
    used = set(re.findall(r'\$var\(cause\) = "(\w+)"', KAMAILIO_CFG))
    counted = set(re.findall(r'prom_counter_reset\("refused_total", "(\w+)"\)', KAMAILIO_CFG))
    assert used == counted == {cause.value for cause in Refusal}


@pytest.mark.parametrize("counter", ["calls_total", "failovers_total", "emergency_calls_total", "dropped_total"])
def test_every_series_is_there_from_the_start(counter: str):
    counted = set(re.findall(rf'prom_counter_inc\("{counter}", "1", "(\w+)"\)', KAMAILIO_CFG))
    assert counted == set(re.findall(rf'prom_counter_reset\("{counter}", "(\w+)"\)', KAMAILIO_CFG))


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        (r"\broute(?:\(|=)(\w+)", r"^route\[(\w+)\]"),
        (r't_on_failure\("(\w+)"\)', r"^failure_route\[(\w+)\]"),
        (r't_on_reply\("(\w+)"\)', r"^onreply_route\[(\w+)\]"),
        (r't_on_branch\("(\w+)"\)', r"^branch_route\[(\w+)\]"),
        (r"\$sht(?:inc)?\((\w+)=>", r'"htable", "htable", "(\w+)=>'),
    ],
)
def test_every_name_that_kamailio_does_not_check_exists_and_is_used(use: str, kind: str):
    defined = set(re.findall(kind, KAMAILIO_CFG, re.MULTILINE))
    assert set(re.findall(use, KAMAILIO_CFG)) == defined


def test_header_of_kamailio_cfg_lists_every_value_of_the_site(settings: Settings, tmp_path: Path):
    render(settings, tmp_path)
    site = (tmp_path / "kamailio/site.cfg").read_text(encoding="utf-8")
    given = set(re.findall(r"^#!define (\w+)", site, re.MULTILINE)) | set(
        re.findall(r'^#!substdef "!(\w+)!', site, re.MULTILINE)
    )
    header, _, body = KAMAILIO_CFG.partition("#!trydef")
    for name in given:
        assert re.search(rf"\b{name}\b", header), f"{name} is not in the header"
        assert name in body, f"{name} is not used"


def test_the_next_is_tried_within_the_times_that_are_promised(settings: Settings, tmp_path: Path):
    """A worker's 1.0 s and an emergency carrier's 2 s, with 60 ms for the grain of tm's timers; `make bench-edge` measures them."""
    grain_ms = 60
    fields = type(settings.edge).model_fields
    unset = settings.edge.model_copy(
        update={name: fields[name].default for name in ("silent_worker_ms", "provisional_only_ms")}
    )
    render(settings.model_copy(update={"edge": unset}), tmp_path)
    site = (tmp_path / "kamailio/site.cfg").read_text(encoding="utf-8")
    given = re.findall(r"^#!(?:define|trydef) (\w+_MS) (\d+)$", site + KAMAILIO_CFG, re.MULTILINE)
    ms = {name: int(value) for name, value in given}
    assert max(ms["SILENT_WORKER_MS"], ms["PROVISIONAL_ONLY_MS"]) + grain_ms <= 1000
    assert max(ms["EMERGENCY_SILENT_MS"], ms["EMERGENCY_PROVISIONAL_ONLY_MS"]) + grain_ms <= 2000


def test_numbers_of_groups_and_sets_agree():
    defined = {name: int(value) for name, value in re.findall(r"^#!define (\w+) (\d+)$", KAMAILIO_CFG, re.MULTILINE)}
    assert {group.name: group.value for group in edge_facts.Group}.items() <= defined.items()
    assert (defined["SET_WORKERS"], defined["SET_EMERGENCY"]) == (edge_facts.WORKERS_SET, edge_facts.EMERGENCY_SET)


def test_no_value_has_the_name_of_a_route():
    """Kamailio would put the value in the name's place."""
    values = set(re.findall(r"^#!(?:tryd|d)ef(?:ine)? (\w+)", KAMAILIO_CFG, re.MULTILINE))
    assert values
    assert not values & set(re.findall(r"^\w*route\[(\w+)\]", KAMAILIO_CFG, re.MULTILINE))


@pytest.mark.parametrize("table", TABLES)
def test_kamailio_does_not_start_without_a_table(make_edge: MakeEdge, table: str):
    edge = make_edge(start=False)
    edge.expected_errors.append(".")
    (edge.folder / "site/kamailio/tables" / table).unlink()
    with pytest.raises(AssertionError, match="Kamailio ended"):
        edge.start()


def test_thousands_of_numbers_are_taken_and_loaded_again_without_a_restart(make_edge: MakeEdge):
    def change(site: dict[str, Any]) -> None:
        site["numbers"] |= {
            f"+1202555{line:04d}": {"agent": "reception", "fallback": "operator"} for line in range(200, 6200)
        }

    edge = make_edge(change)
    assert edge.arrival(edge.from_carrier("+12025556199"))["X-Tandem-Number"] == "+12025556199"
    numbers = edge.folder / "site/kamailio/tables/numbers"
    numbers.write_text(numbers.read_text(encoding="utf-8").replace("+12025556199:", "+14155550199:"), encoding="utf-8")
    later = numbers.stat().st_mtime + 2  # Kamailio compares whole seconds
    os.utime(numbers, (later, later))
    edge.rpc("htable.reload", "numbers")
    assert edge.from_carrier("+12025556199").final().reason == "unknown number"
    assert edge.arrival(edge.from_carrier("+14155550199"))["X-Tandem-Number"] == "+14155550199"


def test_gateways_by_name_may_be_talked_to(tmp_path: Path):
    def change(site: dict[str, Any]) -> None:
        site["trunks"]["second"]["gateways"] = ["sip:example.pstn.twilio.com", "sip:[2001:db8::1]:5061;transport=tcp"]
        site["edge"]["listen"].append({"transport": "tcp", "address": "127.99.99.1"})

    settings = load_site("127.99.99", tmp_path, change)
    elsewhere = [source for source in edge_facts.sources(settings) if source.group is edge_facts.Group.GATEWAY]
    assert [(source.address, source.mask) for source in elsewhere] == [
        ("example.pstn.twilio.com", 32),
        ("2001:db8::1", 128),
    ]
    hosts = [gateway.host for gateway in edge_facts.gateways("second", settings.trunks["second"])]
    assert hosts == ["example.pstn.twilio.com", "[2001:db8::1]:5061"]


def test_advertised_address_is_what_the_far_side_is_told(make_edge: MakeEdge):
    def change(site: dict[str, Any]) -> None:
        site["edge"]["listen"][0]["advertise"] = "192.0.2.77"

    edge = make_edge(change)
    calling = edge.from_carrier()
    invite = edge.arrival(calling)
    assert "192.0.2.77" in invite.all("Via")[0]
    assert "192.0.2.77" in invite["Record-Route"]


def test_metrics_begin_at_zero_and_count(edge: Edge):
    for cause in Refusal:
        assert edge.counter("refused_total", cause.value) == 0
    edge.from_carrier("+14155550100").final()
    assert edge.counter("refused_total", "unknown_number") == 1
    calling = edge.from_carrier(DID)
    edge.first_worker(calling.call_id)
    assert edge.counter("calls_total", "agent") == 1


def test_refusal_is_logged_in_one_line_with_its_cause_and_call(edge: Edge):
    calling = edge.from_carrier("+14155550100")
    calling.final()
    (line,) = [line for line in edge.log.splitlines() if "refused" in line]
    for part in ("status=404", "cause=unknown_number", "trunk=carrier", f"call_id={calling.call_id}"):
        assert part in line
    assert re.search(r"call=[0-9a-f-]{36}", line)


LOG_LINES = re.findall(r'xlog\("L_[A-Z]+", "(.*)"\)', KAMAILIO_CFG)
OF_NO_CALL = ["no answer to OPTIONS gateway=$var(gateway)\\n"]
OF_NO_CALL_ID = [
    "call without an end given back worker=$shtrecord(value) call=$shtrecord(key)\\n",
    "call without an end not counted any more tenant=$shtrecord(value) call=$shtrecord(key)\\n",
    "call without an end not counted any more rule=$shtrecord(value) call_id=$shtrecord(key)\\n",
]
"""The tables of calls have their tokens or Call-IDs alone."""


def test_every_log_line_is_words_and_then_pairs_and_ends_with_the_call():
    assert len(LOG_LINES) == KAMAILIO_CFG.count("xlog(") > 20
    for line in LOG_LINES:
        assert re.fullmatch(r"(?:[A-Za-z,:]+ )+(?:[a-z_]+=\$\S+ |[a-z_]+=[0-9]+ )*[a-z_]+=\$\S+\\n", line), line
        if line not in OF_NO_CALL + OF_NO_CALL_ID:
            assert re.search(r" call=\$(avp\(call\)|var\(token\)) call_id=\$ci\\n$", line), line


def test_guide_names_every_cause_and_every_metric():
    guide = (Path(__file__).parents[2] / "docs/edge.md").read_text(encoding="utf-8")
    refusals = guide.partition("## Refusals")[2].partition("## ")[0].splitlines()
    for cause, status in REFUSAL_STATUS.items():
        (line,) = [line for line in refusals if f"`{cause.value}`" in line]
        assert f"| {status} |" in line, cause
    for name, labels in re.findall(r'"name=(\w+); label=([\w:]+)"', KAMAILIO_CFG):
        (line,) = [line for line in guide.splitlines() if line.startswith(f"| `tandem_edge_{name}` |")]
        assert all(f"`{label}`" in line for label in labels.split(":")), name
        values = set(re.findall(rf'prom_counter_reset\("{name}", "(\w+)"\)', KAMAILIO_CFG))
        for given in re.findall(rf'prom_\w+\("{name}", "[^"]*", (.*)\);', KAMAILIO_CFG):
            values |= set(re.findall(r'"([a-z]+)"', given))
        for value in values:
            assert f"`{value}`" in line or name == "refused_total", value


GUIDE = (Path(__file__).parents[2] / "docs/media-anchoring.md").read_text(encoding="utf-8")


def test_guide_to_media_anchoring_has_a_site_that_loads(tmp_path: Path):
    blocks = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 1

    def change(site: dict[str, Any]) -> None:
        documented = yaml.safe_load(blocks[0])
        site["edge"]["listen"].append({"transport": "tls", "address": "127.99.99.1"})
        site["edge"]["tls"] = {"certificate": "edge.pem", "key": "edge.key"}
        del site["trunks"]["second"]
        site["emergency"]["carriers"] = ["carrier"]
        site["trunks"] |= documented["trunks"]
        site["rtpengine"] = documented["rtpengine"]

    settings = load_site("127.99.99", tmp_path, change)
    assert edge_facts.media_side(settings.trunks["twilio"]) == "public-srtp"
    assert settings.rtpengine["media-1"].control == "127.0.0.1:2223"


def test_guide_to_media_anchoring_names_every_result():
    results = set(re.findall(r'prom_counter_inc\("media_total", "1", "(\w+)"\)', KAMAILIO_CFG))
    assert results == set(re.findall(r'prom_counter_reset\("media_total", "(\w+)"\)', KAMAILIO_CFG))
    assert {result for result in results if f"`{result}`" in GUIDE} == results
