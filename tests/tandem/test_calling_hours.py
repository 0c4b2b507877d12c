"""Nobody is called outside the windows of where their number is at home."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tandem import calling_hours

DAYTIME = ["daily 08:00-21:00"]
NEW_YORK = "+12125550147"
LOS_ANGELES = "+13105550147"
TOLL_FREE = "+18005550147"
BERLIN = "+493012345678"


def at(text: str, zone: str = "America/New_York") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("number", "moment", "is_open"),
    [
        (NEW_YORK, "2026-06-01 08:00", True),
        (NEW_YORK, "2026-06-01 07:59", False),
        (NEW_YORK, "2026-06-01 21:00", False),
        # 06:00 at the Pacific.
        (LOS_ANGELES, "2026-06-01 09:00", False),
        (LOS_ANGELES, "2026-06-01 23:30", True),
        (BERLIN, "2026-06-01 03:00", True),
        (BERLIN, "2026-06-01 16:00", False),
        # At home in all of the country's zones: it must be time in each, Hawaii and the Marianas too.
        (TOLL_FREE, "2026-06-01 12:00", False),
    ],
)
def test_a_number_is_called_by_its_own_clocks(number, moment, is_open):
    zones = calling_hours.zones(number, "UTC")
    assert calling_hours.is_open(DAYTIME, zones, at(moment)) is is_open


def test_an_extension_and_a_number_of_no_known_place_go_by_the_default():
    assert calling_hours.zones("2001", "Europe/Paris") == ("Europe/Paris",)
    assert calling_hours.zones("+88213123456", "Europe/Paris") == ("Europe/Paris",)


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-06-01 12:00", "2026-06-01 12:00"),
        ("2026-06-01 21:30", "2026-06-02 08:00"),
        ("2026-06-05 21:30", "2026-06-08 08:00"),
        # The night in which the clocks go forward is an hour shorter.
        ("2026-03-08 01:30", "2026-03-09 08:00"),
    ],
)
def test_the_next_opening_is_found(moment, opens):
    windows = ["mon-fri 08:00-21:00"]
    assert calling_hours.next_open(windows, ("America/New_York",), at(moment)) == at(opens)


def test_zones_whose_days_never_meet_have_no_opening():
    zones = ("America/New_York", "Asia/Tokyo")
    assert calling_hours.next_open(["daily 09:00-10:00"], zones, at("2026-06-01 12:00")) is None
