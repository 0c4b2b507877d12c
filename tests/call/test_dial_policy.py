"""A model names a destination; what that dials is decided here, and emergencies are never among it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tandem import dial_policy
from tandem.dial_policy import Allowed, Refusal, Refused
from tandem.outcome import TransferOutcome
from tandem.settings import Settings, TransferMethod, load

NOON = 1764590400.0
"""Monday, 1 December 2025, 12:00 UTC."""
ROOT = Path(__file__).resolve().parents[2]


def site(folder: Path, **policy: Any) -> Settings:
    data = yaml.safe_load((ROOT / "lab/config/tandem.yaml").read_text())
    data["freeswitch"] = {"password": "x"}
    data["model"]["key"] = "x"
    data["policy"] = policy
    data["trunks"]["carrier"]["transfer"] = "refer"
    data["destinations"] |= {
        "premium": {"description": "p", "dial": "+19005550199", "trunk": "carrier"},
        "abroad": {"description": "a", "dial": "+442079460000", "trunk": "carrier"},
        "ourselves": {"description": "o", "dial": "+12025550100", "trunk": "carrier"},
        "mobile": {"description": "m", "dial": "+12025550160", "trunk": "carrier"},
        "always_bridged": {"description": "b", "dial": "+12025550161", "trunk": "carrier", "transfer": "bridge"},
        "behind_nine": {"description": "n", "dial": "919005550199", "trunk": "pbx"},
    }
    (folder / "tandem.yaml").write_text(yaml.safe_dump(data))
    agent = yaml.safe_load((ROOT / "lab/config/agents/reception.yaml").read_text())
    agent["destinations"] = [name for name in data["destinations"] if name != "mobile"]
    (folder / "agents").mkdir()
    (folder / "agents/reception.yaml").write_text(yaml.safe_dump(agent))
    (folder / "agents/other.yaml").write_text(yaml.safe_dump(agent | {"destinations": ["mobile"]}))
    return load(folder / "tandem.yaml", {})


def decide(settings: Settings, agent: str, destination: str, trunk: str = "", **options: Any) -> Allowed | Refused:
    return dial_policy.decide(settings, agent, destination, trunk, now=NOON, **options)


def resolve(settings: Settings, destination: str) -> Allowed | Refused:
    return dial_policy.resolve(settings, destination, now=NOON)


def judge(settings: Settings, dialled: str) -> Refusal | None:
    return dial_policy.judge(settings, dialled, now=NOON).refusal


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return site(tmp_path)


def test_a_destination_of_the_agents_is_allowed_as_configured(settings: Settings) -> None:
    assert decide(settings, "reception", "sales") == Allowed("sales", "2001", "pbx", TransferMethod.BRIDGE, 20)


@pytest.mark.parametrize(
    "named", ["Sales", "sales ", " sales", "sale", "sales\n", "", "*", "2001", "+12025550160", "mobile", "nobody"]
)
def test_only_the_agents_own_names_count_and_they_match_exactly(settings: Settings, named: str) -> None:
    decision = decide(settings, "reception", named)
    assert isinstance(decision, Refused)
    assert decision.refusal is Refusal.UNKNOWN_DESTINATION
    assert decision.outcome is TransferOutcome.UNKNOWN_DESTINATION


def test_an_agent_that_does_not_exist_may_do_nothing(settings: Settings) -> None:
    assert isinstance(decide(settings, "nobody", "sales"), Refused)


@given(st.text())
def test_no_text_is_dialled(named: str) -> None:
    decision = decide(_SETTINGS, "reception", named)
    assert isinstance(decision, Refused) or named in _SETTINGS.agents["reception"].destinations


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("premium", Refusal.PREMIUM),
        ("abroad", Refusal.INTERNATIONAL),
        ("ourselves", Refusal.OWN_NUMBER),
        ("behind_nine", Refusal.PREMIUM),
    ],
)
def test_a_destination_that_the_policy_forbids_is_refused_although_it_is_configured(
    settings: Settings, name: str, refusal: Refusal
) -> None:
    decision = decide(settings, "reception", name)
    assert isinstance(decision, Refused)
    assert decision.refusal is refusal
    assert decision.outcome is TransferOutcome.REFUSED_BY_POLICY
    assert "not allowed" in decision.detail


def test_the_policy_may_allow_premium_and_international_numbers(tmp_path: Path) -> None:
    settings = site(tmp_path, premium=True, international=True)
    assert isinstance(decide(settings, "reception", "premium"), Allowed)
    assert isinstance(decide(settings, "reception", "abroad"), Allowed)
    assert isinstance(decide(settings, "reception", "ourselves"), Refused)


def test_the_way_of_transferring_is_the_destinations_or_the_callers_trunks(settings: Settings) -> None:
    def method(name: str, trunk: str) -> TransferMethod:
        decision = decide(settings, "reception", name, trunk)
        assert isinstance(decision, Allowed)
        return decision.method

    assert method("sales", "carrier") is TransferMethod.REFER
    assert method("sales", "pbx") is TransferMethod.BRIDGE
    assert method("sales", "") is TransferMethod.BRIDGE
    assert method("always_bridged", "carrier") is TransferMethod.BRIDGE


def test_a_fallback_need_not_be_the_agents(settings: Settings) -> None:
    assert isinstance(decide(settings, "reception", "mobile"), Refused)
    assert isinstance(resolve(settings, "mobile"), Allowed)


def test_a_trunk_without_a_gateway_takes_no_call(settings: Settings) -> None:
    pbx = settings.trunks["pbx"].model_copy(update={"gateways": []})
    without = settings.model_copy(update={"trunks": {**settings.trunks, "pbx": pbx}})
    decision = decide(without, "reception", "sales")
    assert isinstance(decision, Refused)
    assert decision.refusal is Refusal.NO_GATEWAY


EMERGENCIES = ["911", "933", "112", "988"]


@pytest.mark.parametrize("code", EMERGENCIES)
@pytest.mark.parametrize("form", ["{}", "9{}", "0{}", "1{}", "+1{}", "91{}", "9-{0[0]}-{0[1]}-{0[2]}", " {} "])
def test_an_emergency_number_is_refused_in_every_spelling(settings: Settings, code: str, form: str) -> None:
    assert judge(settings, form.format(code)) is Refusal.EMERGENCY


@pytest.mark.parametrize(
    "uri", ["sip:911@203.0.113.1", "tel:911", "sip:9%311@x", "tel:+1-911;phone-context=x", "sips:911;x=y@h"]
)
def test_an_emergency_number_is_refused_inside_a_uri(settings: Settings, uri: str) -> None:
    assert judge(settings, uri) is Refusal.EMERGENCY


def test_emergencies_are_refused_whatever_the_policy_allows(tmp_path: Path) -> None:
    settings = site(tmp_path, premium=True, international=True)
    for code in EMERGENCIES:
        assert judge(settings, code) is Refusal.EMERGENCY


def test_the_home_countrys_own_emergency_numbers_are_known(tmp_path: Path) -> None:
    settings = site(tmp_path, home_country="GB")
    assert judge(settings, "999") is Refusal.EMERGENCY
    assert judge(settings, "9999") is Refusal.EMERGENCY
    assert judge(settings, "+442079460000") is None
    assert judge(settings, "02079460000") is None
    assert judge(settings, "+12025550160") is Refusal.INTERNATIONAL


@pytest.mark.parametrize(
    ("dialled", "refusal"),
    [
        ("2001", None),
        ("411", None),
        ("+12025550160", None),
        ("12025550160", None),
        ("2025550160", None),
        ("912025550160", None),
        ("+18005550199", None),
        ("+19005550199", Refusal.PREMIUM),
        ("9005550199", Refusal.PREMIUM),
        ("919005550199", Refusal.PREMIUM),
        ("+12029765555", Refusal.PREMIUM),
        ("+442079460000", Refusal.INTERNATIONAL),
        ("011442079460000", Refusal.INTERNATIONAL),
        ("9011442079460000", Refusal.INTERNATIONAL),
        ("+18765550199", Refusal.INTERNATIONAL),
        ("+88213300000", Refusal.INTERNATIONAL),
        ("+5312345678", Refusal.INTERNATIONAL),
        ("+12025550100", Refusal.OWN_NUMBER),
        ("12025550100", Refusal.OWN_NUMBER),
        ("2025550100", Refusal.OWN_NUMBER),
        ("912025550100", Refusal.OWN_NUMBER),
        ("", Refusal.NOT_A_NUMBER),
        ("*67", Refusal.FEATURE_CODE),
        ("#31#", Refusal.NOT_A_NUMBER),
        ("alice", Refusal.NOT_A_NUMBER),
        ("٩١١", Refusal.NOT_A_NUMBER),
        ("+12345", Refusal.NOT_A_NUMBER),
        ("442079460000", Refusal.NOT_A_NUMBER),
        ("12345678", Refusal.NOT_A_NUMBER),
        ("1234567", None),
        ("+", Refusal.NOT_A_NUMBER),
    ],
)
def test_numbers_are_judged_as_dialled(settings: Settings, dialled: str, refusal: Refusal | None) -> None:
    assert judge(settings, dialled) is refusal


@given(st.text(max_size=30))
def test_no_text_breaks_the_judgement(dialled: str) -> None:
    judge(_SETTINGS, dialled)


def _once() -> Settings:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return site(Path(folder))


_SETTINGS = _once()
