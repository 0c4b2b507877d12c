"""Rules of the dial policy: the first that fits decides, what is refused by default has to be opened by name."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tandem import callee, weekly
from tandem.dial_policy import Allowed, Refusal, Refused, decide, decide_number, judge, resolve_ever
from tandem.dial_rules import Opening
from tandem.settings import ConfigurationError, Settings, TransferMethod, load

ROOT = Path(__file__).resolve().parents[2]
WASHINGTON, LONDON, HAVANA = "+12025550160", "+442079460000", "+5371234567"
UK_MOBILE, US_PREMIUM, UK_PREMIUM = "+447400123456", "+19005550199", "+449098790000"


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


NOON = at("2026-06-03T12:00")
"""A Wednesday."""


def site(folder: Path, *rules: dict[str, Any], free: tuple[str, ...] = (), **changes: Any) -> Settings:
    data = yaml.safe_load((ROOT / "lab/config/tandem.yaml").read_text())
    data["freeswitch"] = {"password": "x"}
    data["model"]["key"] = "x"
    data["policy"] = {"rules": list(rules)} | changes.pop("policy", {})
    data["trunks"]["carrier"] |= {"transfer": "refer", "tenant": "acme"}
    data["trunks"]["second"] = {"kind": "generic", "sources": ["127.0.0.22/32"], "gateways": ["sip:127.0.0.22:5060"]}
    data["destinations"] |= {"london": {"description": "l", "dial": LONDON, "trunk": "carrier"}}
    data |= changes
    (folder / "agents").mkdir(exist_ok=True)
    agent = yaml.safe_load((ROOT / "lab/config/agents/reception.yaml").read_text())
    (folder / "agents/reception.yaml").write_text(yaml.safe_dump(agent | {"destinations": ["sales", "london"]}))
    (folder / "agents/free.yaml").write_text(yaml.safe_dump(agent | {"destinations": [], "free_numbers": list(free)}))
    (folder / "tandem.yaml").write_text(yaml.safe_dump(data))
    return load(folder / "tandem.yaml", {})


@pytest.mark.parametrize(
    ("rule", "dialled", "refusal"),
    [
        ({"prefixes": ["+44"], "opens": ["international"]}, LONDON, None),
        ({"prefixes": ["+44"], "opens": ["international"]}, "011442079460000", None),
        ({"prefixes": ["+44"], "opens": ["international"]}, HAVANA, Refusal.INTERNATIONAL),
        ({"prefixes": ["+44"]}, LONDON, Refusal.INTERNATIONAL),
        ({"prefixes": ["+1"]}, "+18765550199", Refusal.INTERNATIONAL),
        ({"prefixes": ["+44"], "opens": ["international"]}, UK_PREMIUM, Refusal.PREMIUM),
        ({"prefixes": ["+44"], "opens": ["international", "premium"]}, UK_PREMIUM, None),
        ({"kinds": ["premium"], "opens": ["premium"]}, US_PREMIUM, None),
        ({"kinds": ["mobile"], "opens": ["international"]}, UK_MOBILE, None),
        ({"kinds": ["mobile"], "opens": ["international"]}, LONDON, Refusal.INTERNATIONAL),
        ({"kinds": ["mobile"], "action": "refuse"}, UK_MOBILE, Refusal.RULE),
        ({"kinds": ["mobile"], "action": "refuse"}, WASHINGTON, Refusal.RULE),
        ({"kinds": ["toll_free"], "action": "refuse"}, "+18005550199", Refusal.RULE),
        ({"kinds": ["toll_free"], "action": "refuse"}, WASHINGTON, None),
        ({"kinds": ["extension"], "action": "refuse"}, "2001", Refusal.RULE),
        ({"kinds": ["extension"], "action": "refuse"}, WASHINGTON, None),
        ({"kinds": ["international"], "action": "refuse"}, LONDON, Refusal.RULE),
        ({"prefixes": ["+1202"], "action": "refuse"}, "2025550160", Refusal.RULE),
        ({"prefixes": ["+1202"], "action": "refuse"}, "912025550160", Refusal.RULE),
        ({"prefixes": ["+1202"], "action": "refuse"}, "+12125550160", None),
        ({"opens": ["own_number"]}, "+12025550100", None),
        ({"opens": ["feature_code"]}, "*67", None),
        ({}, "*67", Refusal.FEATURE_CODE),
        ({"opens": ["feature_code"]}, "*21#", Refusal.NOT_A_NUMBER),
        ({"action": "refuse"}, "2001", Refusal.RULE),
        ({"opens": ["international", "premium", "own_number", "feature_code"]}, "911", Refusal.EMERGENCY),
        ({"prefixes": ["+1911"]}, "+1911", Refusal.EMERGENCY),
    ],
)
def test_a_rule_decides_by_prefix_and_kind_and_opens_what_it_names(
    tmp_path: Path, rule: dict[str, Any], dialled: str, refusal: Refusal | None
) -> None:
    settings = site(tmp_path, {"name": "r"} | rule)
    assert judge(settings, dialled, now=NOON).refusal is refusal


def test_the_first_rule_that_fits_decides_and_one_that_does_not_open_does_not_fit(tmp_path: Path) -> None:
    settings = site(
        tmp_path,
        {"name": "no-london", "prefixes": ["+4420"], "action": "refuse"},
        {"name": "closed", "prefixes": ["+44"]},
        {"name": "open", "prefixes": ["+44"], "opens": ["international"]},
    )
    assert judge(settings, LONDON, now=NOON).refusal is Refusal.RULE
    judgement = judge(settings, UK_MOBILE, now=NOON)
    assert (judgement.refusal, judgement.rule and judgement.rule.name) == (None, "open")


def test_a_rule_holds_for_its_trunks_and_tenants_alone(tmp_path: Path) -> None:
    uk = {"name": "uk", "prefixes": ["+44"], "opens": ["international"], "trunks": ["second"], "tenants": ["acme"]}
    settings = site(tmp_path, uk)

    def refusal(trunk: str, tenant: str) -> Refusal | None:
        return judge(settings, LONDON, trunk=trunk, tenant=tenant, now=NOON).refusal

    assert refusal("second", "acme") is None
    assert refusal("carrier", "acme") is Refusal.INTERNATIONAL
    assert refusal("second", "default") is Refusal.INTERNATIONAL
    assert refusal("", "acme") is Refusal.INTERNATIONAL


@pytest.mark.parametrize(
    ("times", "zone", "when", "fits"),
    [
        (["mon-fri 08:00-18:00"], "UTC", at("2026-06-03T08:00"), True),
        (["mon-fri 08:00-18:00"], "UTC", at("2026-06-03T17:59:59"), True),
        (["mon-fri 08:00-18:00"], "UTC", at("2026-06-03T18:00"), False),
        (["mon-fri 08:00-18:00"], "UTC", at("2026-06-06T12:00"), False),
        (["mon-fri 08:00-18:00", "sat 09:00-12:30"], "UTC", at("2026-06-06T12:00"), True),
        (["daily 22:00-06:00"], "UTC", at("2026-06-07T23:00"), True),
        (["sun 22:00-06:00"], "UTC", at("2026-06-08T05:59"), True),
        (["sun 22:00-06:00"], "UTC", at("2026-06-08T06:00"), False),
        (["sat-sun 00:00-24:00"], "UTC", at("2026-06-07T23:59"), True),
        (["fri-mon 00:00-24:00"], "UTC", at("2026-06-08T12:00"), True),
        (["fri-mon 00:00-24:00"], "UTC", at("2026-06-04T12:00"), False),
        (["daily 08:00-09:00"], "America/New_York", at("2026-01-05T08:30", "America/New_York"), True),
        (["daily 08:00-09:00"], "America/New_York", at("2026-07-06T08:30", "America/New_York"), True),
        (["daily 08:00-09:00"], "America/New_York", at("2026-07-06T08:30"), False),
        (["mon 00:00-01:00"], "Asia/Kathmandu", at("2026-06-07T18:20"), True),
    ],
)
def test_a_rule_holds_at_its_times_on_the_clocks_of_its_zone(
    tmp_path: Path, times: list[str], zone: str, when: float, fits: bool
) -> None:
    settings = site(tmp_path, {"name": "closed", "action": "refuse", "times": times, "time_zone": zone})
    assert (judge(settings, WASHINGTON, now=when).refusal is Refusal.RULE) is fits


def test_the_zone_of_a_rule_is_the_policys_unless_it_has_its_own(tmp_path: Path) -> None:
    rule = {"name": "closed", "action": "refuse", "times": ["daily 08:00-09:00"]}
    settings = site(tmp_path, rule, policy={"time_zone": "Asia/Tokyo"})
    assert judge(settings, WASHINGTON, now=at("2026-06-03T08:30", "Asia/Tokyo")).refusal is Refusal.RULE
    assert judge(settings, WASHINGTON, now=at("2026-06-03T08:30")).refusal is None


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
def test_the_changes_of_the_clocks_that_the_edge_is_told_are_those_of_the_zone(zone: str) -> None:
    changes = weekly.offsets(zone)
    there = ZoneInfo(zone)
    for hours in range(0, 17 * 365 * 24, 37):
        now = changes[0][0] + hours * 3600
        offset = next(offset for begin, offset in reversed(changes) if begin <= now)
        told = (now + offset) // 60 % weekly.DAY
        clock = datetime.fromtimestamp(now, there)
        assert told == clock.hour * 60 + clock.minute


UK = {"name": "uk", "prefixes": ["+44"], "opens": ["international"]}


@pytest.mark.parametrize(
    ("written", "dial"),
    [(LONDON, LONDON), ("011 44 20 7946 0000", LONDON), ("+44 (20) 7946-0000", LONDON), ("9011442079460000", LONDON)],
)
def test_a_free_number_that_a_rule_of_the_agents_allows_is_dialled_in_e164(
    tmp_path: Path, written: str, dial: str
) -> None:
    settings = site(tmp_path, UK, free=("uk",))
    expected = Allowed(dial, dial, "carrier", TransferMethod.REFER, 25, "uk")
    assert decide(settings, "free", "", "carrier", number=written, now=NOON) == expected


@pytest.mark.parametrize(
    ("agent", "number", "refusal"),
    [
        ("reception", LONDON, Refusal.FREE_NUMBER),
        ("nobody", LONDON, Refusal.FREE_NUMBER),
        ("free", WASHINGTON, Refusal.FREE_NUMBER),
        ("free", "2001", Refusal.FREE_NUMBER),
        ("free", HAVANA, Refusal.INTERNATIONAL),
        ("free", UK_PREMIUM, Refusal.PREMIUM),
        ("free", "911", Refusal.EMERGENCY),
        ("free", "*72", Refusal.FEATURE_CODE),
        ("free", "sales", Refusal.NOT_A_NUMBER),
        ("free", "sip:" + LONDON, Refusal.NOT_A_NUMBER),
        ("free", LONDON + "\n", Refusal.NOT_A_NUMBER),
        ("free", LONDON.replace("4", "٤"), Refusal.NOT_A_NUMBER),
    ],
)
def test_any_other_number_that_an_agent_names_is_refused_by_name(
    tmp_path: Path, agent: str, number: str, refusal: Refusal
) -> None:
    settings = site(tmp_path, UK, free=("uk",))
    decision = decide(settings, agent, "", "carrier", number=number, now=NOON)
    assert isinstance(decision, Refused)
    assert decision.refusal is refusal


def test_who_names_a_destination_has_named_no_number(tmp_path: Path) -> None:
    settings = site(tmp_path, UK, free=("uk",))
    sales = decide(settings, "reception", "sales", number=LONDON, now=NOON)
    assert isinstance(sales, Allowed) and sales.dial == "2001"
    nobody = decide(settings, "free", "nobody", number=LONDON, now=NOON)
    assert isinstance(nobody, Refused) and nobody.refusal is Refusal.UNKNOWN_DESTINATION


def test_an_extension_is_a_free_number_where_a_rule_says_so(tmp_path: Path) -> None:
    settings = site(tmp_path, {"name": "desks", "kinds": ["extension"], "trunks": ["pbx"]}, free=("desks",))
    decision = decide(settings, "free", "", "carrier", number="2042", now=NOON)
    assert isinstance(decision, Allowed)
    assert (decision.dial, decision.trunk) == ("2042", "pbx")


def test_a_number_of_an_operators_needs_no_rule_and_takes_the_first_trunk_that_the_rules_allow(tmp_path: Path) -> None:
    routes = {"+": ["carrier", "second"]}
    refuse = {"name": "not-over-carrier", "prefixes": ["+1202"], "trunks": ["carrier"], "action": "refuse"}
    settings = site(tmp_path, refuse, routes=routes)
    found = decide_number(settings, "(202) 555-0160", tenant="acme", now=NOON)
    assert found == Allowed(WASHINGTON, WASHINGTON, "second", TransferMethod.BRIDGE, 25, "")
    over = decide_number(settings, WASHINGTON, tenant="acme", trunk="carrier", now=NOON)
    assert isinstance(over, Refused) and over.refusal is Refusal.RULE
    nowhere = decide_number(settings, WASHINGTON, trunk="nowhere", now=NOON)
    assert isinstance(nowhere, Refused) and nowhere.refusal is Refusal.NO_GATEWAY


def test_what_is_counted_at_one_time_is_bridged_for_a_call_that_left_us_cannot_be_counted(tmp_path: Path) -> None:
    counted = UK | {"max_calls": 2}
    hourly = {"name": "hourly", "prefixes": ["+1"], "max_calls_per_hour": 2}
    settings = site(tmp_path, counted, hourly, free=("uk", "hourly"))
    methods = {
        number: decide(settings, "free", "", "carrier", number=number, now=NOON) for number in (LONDON, WASHINGTON)
    }
    assert {number: getattr(found, "method", None) for number, found in methods.items()} == {
        LONDON: TransferMethod.BRIDGE,
        WASHINGTON: TransferMethod.REFER,
    }


@pytest.mark.parametrize(
    ("rule", "ever"),
    [
        ({"tenants": ["acme"], "opens": ["international"]}, True),
        ({"times": ["sat 03:00-05:00"], "opens": ["international"]}, True),
        ({"times": ["daily 08:00-18:00"], "tenants": ["acme"], "opens": ["international"]}, True),
        ({"trunks": ["second"], "opens": ["international"]}, False),
        ({"action": "refuse"}, False),
    ],
)
def test_a_destination_that_is_allowed_to_some_tenant_at_some_time_is_not_told_of_as_refused(
    tmp_path: Path, rule: dict[str, Any], ever: bool
) -> None:
    settings = site(tmp_path, {"name": "r"} | rule)
    assert isinstance(resolve_ever(settings, "london", NOON), Allowed) is ever


@pytest.mark.parametrize(
    ("rules", "free", "message"),
    [
        ([{"name": "a"}, {"name": "a"}], (), r"policy\.rules\[1\]\.name: 'a' is given twice"),
        ([{"name": "a", "trunks": ["nowhere"]}], (), r"policy\.rules\[0\]\.trunks\[0\]: no trunk named 'nowhere'"),
        ([{"name": "a", "tenants": ["nobody"]}], (), r"tenants\[0\]: no trunk of a tenant named 'nobody'"),
        ([{"name": "a", "action": "refuse", "opens": ["premium"]}], (), "a rule that refuses has no opens"),
        ([{"name": "a", "action": "refuse", "max_calls": 1}], (), "a rule that refuses has no max_calls"),
        ([{"name": "a", "time_zone": "UTC"}], (), "has a time_zone and no times"),
        ([{"name": "a", "prefixes": ["+1"], "kinds": ["extension"]}], (), "which no extension or feature code has"),
        ([{"name": "a", "times": ["08:00-09:00"]}], (), "no time of the week; expected e.g. mon-fri 08:00-18:00"),
        ([{"name": "a", "times": ["mon 08:00-08:00"]}], (), "begins when it ends"),
        ([{"name": "a", "times": ["mon 8:00-9:00"]}], (), "no time of the week"),
        ([{"name": "a", "times": ["mon 08:00-09:00"], "time_zone": "Mars"}], (), "'Mars' is no time zone"),
        ([{"name": "a", "kinds": ["emergency"]}], (), r"policy\.rules\[0\]\.kinds\[0\]: expected"),
        ([{"name": "a", "opens": ["emergency"]}], (), r"policy\.rules\[0\]\.opens\[0\]: expected"),
        ([{"name": "a", "prefix": ["+1"]}], (), "prefix: is not a known key"),
        ([{"name": "a"}], ("b",), r"free_numbers\[0\]: no rule that allows named 'b'; expected one of: a"),
        ([{"name": "a", "action": "refuse"}], ("a",), "no rule that allows named 'a'; expected one of: none"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_an_error(
    tmp_path: Path, rules: list[dict[str, Any]], free: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        site(tmp_path, *rules, free=free)


def test_the_guide_has_rules_that_load_and_do_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs/dial-policy.md").read_text()
    policy, agent = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    rules = policy["policy"].pop("rules")
    trial = {"kind": "generic", "sources": ["127.0.0.23/32"], "gateways": ["sip:127.0.0.23:5060"], "tenant": "trial"}

    def trunks(folder: Path) -> dict[str, Any]:
        folder.mkdir()
        return site(folder).model_dump(mode="json")["trunks"] | {"trial": trial}

    settings = site(tmp_path, *rules, free=tuple(agent["free_numbers"]), trunks=trunks(tmp_path / "before"), **policy)
    office_hours = at("2026-06-03T10:00", "Europe/Dublin")
    for dialled, tenant, trunk, when, found in (
        (LONDON, "default", "carrier", NOON, "london"),
        (UK_MOBILE, "default", "carrier", NOON, Refusal.INTERNATIONAL),
        (UK_PREMIUM, "default", "carrier", NOON, Refusal.PREMIUM),
        ("+525512345678", "default", "carrier", NOON, "mexican-mobiles"),
        ("+35312345678", "acme", "carrier", office_hours, "acme-ireland"),
        ("+35312345678", "acme", "carrier", at("2026-06-03T18:00", "Europe/Dublin"), Refusal.INTERNATIONAL),
        ("+35312345678", "default", "carrier", office_hours, Refusal.INTERNATIONAL),
        ("+12125550199", "default", "carrier", NOON, "answering-service"),
        ("+19005550123", "default", "carrier", NOON, "weather-line"),
        ("+19005550124", "default", "carrier", NOON, Refusal.PREMIUM),
        ("+12025550100", "default", "carrier", NOON, "back-to-reception"),
        ("*72", "default", "pbx", NOON, "night-service"),
        ("*72", "default", "carrier", NOON, Refusal.FEATURE_CODE),
        ("+18765550199", "default", "carrier", NOON, Refusal.INTERNATIONAL),
        ("2001", "trial", "pbx", NOON, Refusal.RULE),
        ("2001", "default", "pbx", NOON, None),
    ):
        judgement = judge(settings, dialled, trunk=trunk, tenant=tenant, now=when)
        assert (judgement.refusal or (judgement.rule and judgement.rule.name)) == found, dialled
    free = decide(settings, "free", "", number="(202) 555-0160", now=NOON)
    assert isinstance(free, Allowed) and free.rule == "at-home"


def test_the_guide_names_every_refusal() -> None:
    text = (ROOT / "docs/dial-policy.md").read_text()
    assert all(f"`{refusal.value}`" in text for refusal in Refusal)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An agent that may name nearly anything itself."""
    everything = [opening.value for opening in Opening]
    anything = {"name": "anything", "opens": everything}
    return site(tmp_path_factory.mktemp("free"), anything, free=("anything",))


TEXTS = [
    st.text(max_size=40),
    st.text("+0123456789*#;@%{}[]|,&:$()-. \n\0٩９", max_size=24),
    st.from_regex(r"\A(\+|9|011|)[1-9][0-9 ().-]{5,14}\Z"),
]


@given(number=st.one_of(TEXTS))
def test_of_any_text_nothing_is_dialled_but_what_was_judged(free: Settings, number: str) -> None:
    decision = decide(free, "free", "", "carrier", number=number, now=NOON)
    if isinstance(decision, Refused):
        return
    assert re.fullmatch(r"\+[1-9][0-9]{6,14}|[0-9]{1,7}|[*][0-9*]{1,14}", decision.dial)
    assert not re.fullmatch(callee.emergency_digits(free), decision.dial)
    again = judge(free, decision.dial, trunk=decision.trunk, now=NOON)
    assert (again.refusal, again.rule and again.rule.name) == (None, decision.rule)
    assert decide(free, "free", "", "carrier", number=decision.dial, now=NOON) == decision
