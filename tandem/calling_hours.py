"""When somebody may be called: windows of the week, by the clocks where their number is at home.

A number may be at home in several time zones (a mobile one, a toll-free one): then it must be time in each of them.
"""

from collections.abc import Sequence

from phonenumbers import parse, timezone
from phonenumbers.phonenumberutil import NumberParseException

from tandem import weekly

MINUTE_S = 60


def zones(number: str, default: str) -> tuple[str, ...]:
    """IANA names of the time zones of ``number``; ``default`` where nothing is known, as of an extension."""
    try:
        found = timezone.time_zones_for_number(parse(number)) if number.startswith("+") else ()
    except NumberParseException:
        found = ()
    return tuple(zone for zone in found if zone != timezone.UNKNOWN_TIMEZONE) or (default,)


def is_open(windows: Sequence[str], places: Sequence[str], at: float) -> bool:
    """Whether ``at`` (Unix seconds) is within ``windows`` in each of the time zones ``places``."""
    spans = weekly.spans(windows)
    minutes = [weekly.minute_of_week(at, place) for place in places]
    return all(any(minute in span for span in spans) for minute in minutes)


def next_open(windows: Sequence[str], places: Sequence[str], at: float) -> float | None:
    """``at`` where it is open, else the first full minute at which it is; None where it is not within a week and a day,
    which holds for ever: the windows and the clocks of ``places`` never agree.
    """
    if is_open(windows, places, at):
        return at
    minute = at - at % MINUTE_S
    for _ in range(weekly.WEEK + weekly.DAY):
        minute += MINUTE_S
        if is_open(windows, places, minute):
            return minute
    return None
