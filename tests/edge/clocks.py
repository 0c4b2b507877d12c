"""Times that are now, or not, whenever a scenario is played."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_MINUTES = (1, 30, 58, 62)
_ZONES = {"": "UTC", "_in_kiritimati": "Pacific/Kiritimati", "_in_new_york": "America/New_York"}


def times(now: float) -> dict[str, str]:
    """``minute_now``, ``minute_1_ago``, ...: whole minutes of Unix time. ``around_now``: two hours before and after, as
    policy.rules[].times has it; ``not_now``: the rest of the day.
    """
    values = {f"minute_{ago}_ago": str(int(now) // 60 - ago) for ago in _MINUTES}
    values["minute_now"] = str(int(now) // 60)
    for suffix, zone in _ZONES.items():
        there = datetime.fromtimestamp(now, ZoneInfo(zone))
        before, after = (f"{there + timedelta(hours=hours):%H:%M}" for hours in (-2, 2))
        values[f"around_now{suffix}"] = f"daily {before}-{after}"
        values[f"not_now{suffix}"] = f"daily {after}-{before}"
    return values
