"""Times of the week as people write them: ``mon-fri 08:00-18:00``, ``sat 09:00-12:30``, ``daily 22:00-06:00``."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY
"""Minutes. A minute of the week counts from Monday, 0:00."""
FIRST_YEAR, LAST_YEAR = 2020, 2036
"""For which :func:`offsets` knows the clock's changes. Beyond, the last one holds."""

_DAY = "|".join(DAYS)
_TIME = "([01][0-9]|2[0-3]):([0-5][0-9])"
_FORM = re.compile(rf"(daily|({_DAY})(?:-({_DAY}))?) {_TIME}-(?:{_TIME}|24:00)")
_HOUR_S = 3600


def spans(texts: Iterable[str]) -> tuple[range, ...]:
    """Minutes of the week that ``texts`` cover, in order; what passes midnight goes on in the next day.

    Raises ValueError, which says what was expected, for a text of another form.
    """
    return tuple(sorted((span for text in texts for span in _spans(text)), key=lambda span: span.start))


def minute_of_week(at: float, zone: str) -> int:
    """Where the clocks of ``zone`` (IANA) stand at ``at`` (Unix seconds)."""
    there = datetime.fromtimestamp(at, ZoneInfo(zone))
    return there.weekday() * DAY + there.hour * 60 + there.minute


def zone(text: str) -> str:
    """``text`` where it names a time zone. Raises ValueError."""
    if text not in _zones():
        raise ValueError(f"{text!r} is no time zone; expected an IANA name, e.g. America/New_York")
    return text


@cache
def offsets(zone: str) -> tuple[tuple[int, int], ...]:
    """When the clocks of ``zone`` are changed (Unix seconds), and by how much they are ahead of UTC from then on (seconds)."""
    there = ZoneInfo(zone)

    def ahead(at: int) -> int:
        offset = datetime.fromtimestamp(at, there).utcoffset()
        assert offset is not None
        return round(offset.total_seconds())

    at = _year(FIRST_YEAR)
    found = [(at, ahead(at))]
    while (later := at + 24 * _HOUR_S) < _year(LAST_YEAR + 1):
        if ahead(later) != found[-1][1]:
            found.append(_change(at, later, ahead))
        at = later
    return tuple(found)


def _change(before: int, after: int, ahead: Callable[[int], int]) -> tuple[int, int]:
    old = ahead(before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if ahead(middle) == old else (before, middle)
    return after, ahead(after)


def _year(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def _spans(text: str) -> Iterator[range]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time of the week; expected e.g. mon-fri 08:00-18:00 or daily 22:00-06:00")
    first = 0 if match[1] == "daily" else DAYS.index(match[2])
    last = 6 if match[1] == "daily" else DAYS.index(match[3] or match[2])
    begin = int(match[4]) * 60 + int(match[5])
    end = DAY if match[6] is None else int(match[6]) * 60 + int(match[7])
    if begin == end:
        raise ValueError(f"{text!r} begins when it ends; expected 00:00-24:00 for the whole day")
    length = (end - begin) % DAY or DAY
    for day in range(first, first + (last - first) % 7 + 1):
        start = (day * DAY + begin) % WEEK
        yield range(start, min(start + length, WEEK))
        if start + length > WEEK:
            yield range(start + length - WEEK)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
