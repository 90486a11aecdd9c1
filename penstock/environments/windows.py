"""When a freeze holds: wall-clock times in a zone → moments. Pure, and right where clocks are changed."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import attrs

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEK = timedelta(days=7)
_MOMENT = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\s+(\d{1,2}):(\d{2})"
_WEEKLY = re.compile(rf"\s*{_MOMENT}\s*(?:-|–|to)\s*{_MOMENT}\s*", re.IGNORECASE)


@attrs.frozen
class Span:
    """From `begins` on, until just before `ends`; both UTC."""

    begins: datetime
    ends: datetime

    def holds(self, now: datetime) -> bool:
        """Whether the moment lies within."""
        return self.begins <= now < self.ends


@attrs.frozen
class WeekMoment:
    """A time on a day of the week; Monday is 0."""

    day: int
    time: time

    def __str__(self) -> str:
        return f"{DAYS[self.day]} {self.time:%H:%M}"


@attrs.frozen
class Weekly:
    """Every week from one moment to another, over the week's end if need be."""

    begins: WeekMoment
    ends: WeekMoment

    def __str__(self) -> str:
        return f"{self.begins} – {self.ends}"


def parse_weekly(text: str) -> Weekly:
    """`Fri 16:00 – Mon 08:00`. Raises: ValueError: what is wrong, and the remedy."""
    match = _WEEKLY.fullmatch(text[:60])
    if match is None:
        raise ValueError(f'"{text[:40]}" is no part of a week; write Fri 16:00 – Mon 08:00')
    begins, ends = _moment(match[1], match[2], match[3]), _moment(match[4], match[5], match[6])
    if begins == ends:
        raise ValueError(f'"{text[:40]}" begins when it ends; write Fri 16:00 – Mon 08:00')
    return Weekly(begins, ends)


def _moment(day: str, hour: str, minute: str) -> WeekMoment:
    if int(hour) > 23 or int(minute) > 59:
        raise ValueError(f"{hour}:{minute} is no time of day; write 00:00 to 23:59")
    return WeekMoment(DAYS.index(day.capitalize()), time(int(hour), int(minute)))


def span_of(begins: datetime, ends: datetime, zone: ZoneInfo) -> Span:
    """Wall-clock times of a zone as moments."""
    return Span(_earliest(begins, zone), _latest(ends, zone))


def weekly_spans(weekly: Weekly, zone: ZoneInfo, now: datetime) -> Iterable[Span]:
    """Those around a moment, in order: that of the week before, of this week and of the next."""
    today = now.astimezone(zone).date()
    monday = today - timedelta(days=today.weekday())
    for week in (-1, 0, 1):
        begins = datetime.combine(monday + timedelta(days=weekly.begins.day), weekly.begins.time) + week * WEEK
        ends = datetime.combine(monday + timedelta(days=weekly.ends.day), weekly.ends.time) + week * WEEK
        yield span_of(begins, ends if ends > begins else ends + WEEK, zone)


def _earliest(wall: datetime, zone: ZoneInfo) -> datetime:
    """Of a wall-clock time that clocks show twice, or never, the earliest moment that it may mean."""
    return min(_readings(wall, zone))


def _latest(wall: datetime, zone: ZoneInfo) -> datetime:
    return max(_readings(wall, zone))


def _readings(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second
