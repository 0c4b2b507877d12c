"""docs/emergency.md: what it has to copy works."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem import settings
from tandem.notify.notice import Notice
from tests.notify.test_channels import GUIDE


@pytest.fixture
def example() -> Any:
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    return yaml.safe_load(text)


def test_configuration_of_the_guide_is_valid(example: Any, tmp_path: Path):
    carrier = {"kind": "generic", "gateways": ["sip:192.0.2.7:5060"]}
    site = {
        "edge": {"listen": [{"address": "127.0.0.1"}]},
        "trunks": {
            "bandwidth": carrier | {"sources": ["192.0.2.7/32"]},
            "twilio": carrier | {"sources": ["192.0.2.8/32"]},
            "pbx": {"kind": "pbx", "sources": ["192.0.2.9/32"], "gateways": ["sip:192.0.2.9"]},
        },
        "destinations": {"security": {"description": "security", "dial": "5555", "trunk": "pbx"}},
        "workers": {"worker-1": {"address": "127.0.0.11"}},
        "freeswitch": {"password": "secret"},
    }
    file = tmp_path / "tandem.yaml"
    file.write_text(yaml.safe_dump(site | example), encoding="utf-8")
    loaded = settings.load(file, os.environ | {"TANDEM_NOTIFY_SECRET": "a-secret-of-sixteen"})
    assert set(loaded.emergency.notify.recipients) == {"desk", "guards", "log"}


def test_notice_of_the_guide_is_one():
    (text,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    shown = json.loads(text)
    assert Notice.model_validate(shown).model_dump(mode="json", exclude_none=True) == shown
