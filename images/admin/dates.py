"""Days, months and years to choose from, at the price of two look-ups in an index.

Django's own date hierarchy asks the database for every distinct day, which SQLite answers with a call back into
Python for each row: a second at 100,000 rows. Here all periods from the oldest image to the newest are offered,
also those in which nothing was made.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass, field
from datetime import date, datetime

from django.contrib.admin.views.main import ChangeList
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext

FIELD = "created_at"
#: The most years that are offered, the latest ones.
MAX_YEARS = 30


@dataclass(frozen=True, kw_only=True)
class Link:
    """Something to choose; without `link` it is what has been chosen."""

    title: str
    link: str = ""


@dataclass(frozen=True, kw_only=True)
class Periods:
    """What Django's template `admin/date_hierarchy.html` shows."""

    show: bool = False
    back: Link | None = None
    choices: list[Link] = field(default_factory=list)


class _Chooser:
    """The periods of one list, as links that keep its other filters."""

    def __init__(self, cl: ChangeList, first: date, last: date) -> None:
        self.cl, self.first, self.last = cl, first, last

    def link(self, title: str, **chosen: int) -> Link:
        wanted = {f"{FIELD}__{name}": str(value) for name, value in chosen.items()}
        return Link(title=title, link=self.cl.get_query_string(wanted, [f"{FIELD}__"]))

    def month_link(self, month: date) -> Link:
        return self.link(capfirst(date_format(month, "YEAR_MONTH_FORMAT")), year=month.year, month=month.month)

    def years(self) -> Periods:
        years = range(max(self.first.year, self.last.year - MAX_YEARS + 1), self.last.year + 1)
        return Periods(show=True, choices=[self.link(str(year), year=year) for year in years])

    def months(self, year: int) -> Periods:
        months = [date(year, number, 1) for number in range(1, 13)]
        shown = [month for month in months if self.first.replace(day=1) <= month <= self.last]
        return Periods(show=True, back=self.link(gettext("All dates")), choices=[self.month_link(m) for m in shown])

    def days(self, year: int, month: int) -> Periods:
        days = [date(year, month, number) for number in range(1, calendar.monthrange(year, month)[1] + 1)]
        shown = [
            self.link(capfirst(date_format(day, "MONTH_DAY_FORMAT")), year=year, month=month, day=day.day)
            for day in days
            if self.first <= day <= self.last
        ]
        return Periods(show=True, back=self.link(str(year), year=year), choices=shown)

    def day(self, day: date) -> Periods:
        chosen = Link(title=capfirst(date_format(day, "MONTH_DAY_FORMAT")))
        return Periods(show=True, back=self.month_link(day.replace(day=1)), choices=[chosen])


def periods(cl: ChangeList) -> Periods:
    """The periods to choose from below the one that is chosen.

    Args:
        cl: The list. Django has refused values that are no date already.
    """
    moments = cl.root_queryset.order_by(FIELD).values_list(FIELD, flat=True)
    first, last = moments.first(), moments.last()
    if first is None or last is None:
        return Periods()
    chooser = _Chooser(cl, _local_date(first), _local_date(last))
    year, month, day = (_number(cl, name) for name in ("year", "month", "day"))
    if not year and chooser.first.year == chooser.last.year:
        year = chooser.first.year
        month = chooser.first.month if chooser.first.month == chooser.last.month else None
    if year and month and day:
        return chooser.day(date(year, month, day))
    if year and month:
        return chooser.days(year, month)
    return chooser.months(year) if year else chooser.years()


def _local_date(moment: datetime) -> date:
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()


def _number(cl: ChangeList, name: str) -> int | None:
    value = cl.params.get(f"{FIELD}__{name}")
    return int(value) if value and str(value).isdecimal() else None
