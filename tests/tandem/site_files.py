"""A valid site to change one thing in, for the tests of settings and the command line."""

import copy
from pathlib import Path
from typing import Any

import yaml

SITE: dict[str, Any] = {
    "edge": {"listen": [{"transport": "udp", "address": "127.0.0.1", "port": 5060}]},
    "trunks": {
        "carrier": {
            "kind": "generic",
            "sources": ["127.0.0.21/32"],
            "gateways": ["sip:127.0.0.21:5060"],
            "caller_ids": ["+12025550100"],
        },
        "pbx": {"kind": "pbx", "sources": ["127.0.0.31/32"], "gateways": ["sip:127.0.0.31:5060"]},
    },
    "numbers": {"+12025550100": {"agent": "reception", "fallback": "voicemail"}, "+12025550101": {"trunk": "pbx"}},
    "destinations": {"sales": {"description": "sales", "dial": "2001", "trunk": "pbx"}},
    "emergency": {"numbers": ["911"], "carriers": ["carrier"]},
    "workers": {"worker-1": {"address": "127.0.0.11", "loopback": "127.0.0.11"}},
    "freeswitch": {"password": "ClueCon"},
    "records": {"url": "sqlite:///tandem.db", "spool": "spool"},
}
AGENT: dict[str, Any] = {"instructions": "Be brief.", "greeting": "Hello.", "destinations": ["sales"]}


def write_site(folder: Path, changes: dict[str, Any] | None = None, agent: dict[str, Any] | None = None) -> Path:
    """Files of SITE and AGENT with ``changes``: dotted place → value, or None to remove it. The path of tandem.yaml."""
    data, agent_data = copy.deepcopy(SITE), copy.deepcopy(AGENT)
    for target, wanted in ((data, changes or {}), (agent_data, agent or {})):
        for place, value in wanted.items():
            change(target, place.split("/"), value)
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    (folder / "agents/reception.yaml").write_text(yaml.safe_dump(agent_data, sort_keys=False))
    path = folder / "tandem.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def change(data: Any, place: list[str], value: Any) -> None:
    for key in place[:-1]:
        data = data[int(key)] if isinstance(data, list) else data.setdefault(key, {})
    if value is None:
        del data[place[-1]]
    elif isinstance(data, list):
        data[int(place[-1])] = value
    else:
        data[place[-1]] = value
