"""The trunks that README.md shows are valid where it says that they belong."""

import re
from pathlib import Path

import pytest
import yaml

from tandem import settings

ROOT = Path(__file__).parents[2]
TRUNKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", TRUNKS, ids=["twilio", "bandwidth"])
def test_a_trunk_of_the_readme_takes_the_place_of_the_carrier(tmp_path, text):
    data = yaml.safe_load((ROOT / "config/tandem.yaml").read_text(encoding="utf-8"))
    trunks = yaml.safe_load(text)["trunks"]
    data["trunks"] = trunks | {"pbx": data["trunks"]["pbx"]}
    data["emergency"]["carriers"] = list(trunks)
    (tmp_path / "tandem.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    (tmp_path / "agents").symlink_to(ROOT / "config/agents")
    loaded = settings.load(tmp_path / "tandem.yaml", {"TANDEM_EVENT_SOCKET_PASSWORD": "secret"})
    assert set(loaded.trunks) == {*trunks, "pbx"}
