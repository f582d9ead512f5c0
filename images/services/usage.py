"""What was spent in a range of days, what came of it, and how long it took: for the admin's page and `images_usage`.

Nothing is summed up in advance, so nothing can drift: the database adds up the rows, those of deleted images
(`DeletedImage`) as well, from indexes that hold all that is counted. Percentiles would cost it a sort of every row.
They are taken from a random sample, which is everything as long as there are no more than `MAX_DURATIONS` pictures.
"""

from __future__ import annotations

import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Case, Count, Expression, F, IntegerField, Q, QuerySet, Sum, Value, When
from django.utils import timezone

from ..exceptions import ImageNotFound, ProviderFailure, QueueUnavailable
from ..models import STALE_AFTER, CostBasis, DeletedImage, GeneratedImage, Status

#: What users were promised: the shares of generations and of deletions that succeed, and the most that nine in ten
#: pictures take.
PROMISED_SUCCESS, PROMISED_DELETIONS, PROMISED_MS = 0.95, 0.99, 30_000
#: A promise is not called missed on account of fewer cases.
ENOUGH = 20
#: Pictures whose durations are looked at.
MAX_DURATIONS = 10_000
#: Users or content items that are listed, those that cost most; the others are one line together.
MAX_GROUPS = 100
#: Queries in one statement. SQLite takes 500.
MAX_UNION = 100
#: From this number of days on, months are counted instead.
MAX_DAYS = 367
#: The longest range of days.
MAX_YEARS = 20
#: The failures that are neither the provider's fault nor ours: its safety system refused the caller's text, or a
#: person or a stop ended it.
NOBODYS = frozenset({"content_rejected", "cancelled", ImageNotFound.code})
#: Failures that a provider reports and only the operator can fix.
OPERATORS = {
    "provider_auth",
    "provider_model_unavailable",
    "provider_not_configured",
    "provider_quota_exhausted",
}
#: Failures before any provider was asked.
UNPAID = {QueueUnavailable.code, "budget_exhausted"}


def _codes(parent: type[ProviderFailure]) -> set[str]:
    return {parent.code}.union(*(_codes(child) for child in parent.__subclasses__()))


#: Failures that providers answer for. They do not count against the promise that was made to users.
PROVIDERS_OWN = frozenset(_codes(ProviderFailure) - NOBODYS - {ProviderFailure.code} - OPERATORS)


class By(StrEnum):
    """What the figures are listed by."""

    DAY = "day"
    MODEL = "model"
    USER = "user"
    ITEM = "item"


#: A picture that was made, and whose cost is known: its number and its cost say everything of it.
_ORDINARY = (
    Q(error_code="", status=Status.READY)
    & Q(cost__isnull=False, duration_ms__isnull=False)
    & ~Q(cost_basis=CostBasis.AT_LEAST)
)
_COLUMNS = {By.MODEL: ("provider", "model"), By.USER: ("owner_id",), By.ITEM: ("content_item_id",)}

#: A line's key: a day; a provider and a model; a user's primary key; a content item.
Key = tuple[Any, ...]
Rows = QuerySet[Any]


@dataclass(frozen=True, kw_only=True)
class Period:
    """A range of days in the current time zone, both included."""

    first: date
    last: date

    @classmethod
    def of_days(cls, days: int) -> Period:
        """The last `days` days, today included."""
        today = local_date(timezone.now())
        return cls(first=today - timedelta(days=days - 1), last=today)

    @classmethod
    def parse(cls, first: str, last: str) -> Period:
        """A range from two dates such as `2026-11-28`. A missing one is a month before the other, or today.

        Raises:
            ValueError: One is not a date, they are the wrong way round, or more than `MAX_YEARS` apart.
        """
        end = date.fromisoformat(last) if last else local_date(timezone.now())
        start = date.fromisoformat(first) if first else end - timedelta(days=29)
        if not timedelta(0) <= end - start <= timedelta(days=366 * MAX_YEARS):
            raise ValueError(f"The first day must come before the last one, by at most {MAX_YEARS} years.")
        return cls(first=start, last=end)

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.last - self.first).days + 1

    @property
    def in_months(self) -> bool:
        """Whether it is so long that months are counted instead of days."""
        return self.days >= MAX_DAYS

    @property
    def steps(self) -> list[date]:
        """The first day of everything that is counted by itself: every day, or every month."""
        every = (self.first + timedelta(days=number) for number in range(self.days))
        return [day for day in every if not self.in_months or day == self.first or day.day == 1]


@dataclass(kw_only=True)
class Figures:
    """Counts of images, added up with `+=`.

    Attributes:
        requested: All of them.
        ready: Those whose picture was made, whether or not it was deleted afterwards.
        providers_failed: Failed for a reason that the provider answers for.
        refused: The provider's safety system refused the text, or a person ended it.
        failed: Every other failure: ours, the operator's, or a process that was stopped.
        running: Being generated.
        cost: In US dollars, as far as it is known.
        unknown: Images of unknown cost.
        at_least: Images a part of whose cost is unknown.
        durations: Of pictures, in milliseconds; of a sample of them if there are very many.
    """

    requested: int = 0
    ready: int = 0
    providers_failed: int = 0
    refused: int = 0
    failed: int = 0
    running: int = 0
    cost: Decimal = Decimal(0)
    unknown: int = 0
    at_least: int = 0
    durations: list[int] = field(default_factory=list)

    def __iadd__(self, other: Figures) -> Figures:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))
        return self

    def __sub__(self, other: Figures) -> Figures:
        """What is left without `other`; durations are not."""
        names = [item.name for item in fields(self) if item.name != "durations"]
        return Figures(**{name: getattr(self, name) - getattr(other, name) for name in names})

    @property
    def is_cost_unknown(self) -> bool:
        """Whether nothing is known of what these cost."""
        return bool(self.unknown) and not self.cost

    @property
    def success(self) -> float | None:
        """The share that succeeded, leaving out what providers failed or refused; `None` if nothing is left."""
        counted = self.ready + self.failed
        return self.ready / counted if counted else None

    @property
    def misses_success(self) -> bool:
        """Whether fewer succeeded than promised, and enough were tried to say so."""
        share = self.success
        return share is not None and share < PROMISED_SUCCESS and self.ready + self.failed >= ENOUGH

    @property
    def median_ms(self) -> int | None:
        """Half of the pictures took no longer than this."""
        return percentile(self.durations, 0.5)

    @property
    def ninetieth_ms(self) -> int | None:
        """Nine in ten pictures took no longer than this."""
        return percentile(self.durations, 0.9)

    @property
    def misses_time(self) -> bool:
        """Whether pictures took longer than promised, and enough were made to say so."""
        return len(self.durations) >= ENOUGH and (self.ninetieth_ms or 0) > PROMISED_MS


@dataclass(frozen=True, kw_only=True)
class Deletions:
    """What came of deletions.

    Attributes:
        at_first_try: Succeeded at the first try.
        later: Succeeded after a failure or an interruption.
        unfinished: Have not succeeded yet, whenever they began.
    """

    at_first_try: int
    later: int
    unfinished: int

    @property
    def success(self) -> float | None:
        """The share that succeeded at the first try; `None` if there were none."""
        asked = self.at_first_try + self.later + self.unfinished
        return self.at_first_try / asked if asked else None

    @property
    def misses_promise(self) -> bool:
        """Whether fewer succeeded than promised, and there were enough to say so."""
        share, asked = self.success, self.at_first_try + self.later + self.unfinished
        return share is not None and share < PROMISED_DELETIONS and asked >= ENOUGH


@dataclass(frozen=True, kw_only=True)
class UsageReport:
    """The figures of a range of days.

    Attributes:
        period: The range.
        by: What `groups` are.
        total: Everything together.
        days: By day, or by month if the range is long; the oldest first, also those on which nothing happened.
        groups: What was asked for: the newest day first, or what cost most first.
        others: What is not in `groups`; `None` if everything is.
        share: The share of the pictures whose durations were looked at.
        deletions: What came of deletions in these days.
    """

    period: Period
    by: By
    total: Figures
    days: Mapping[date, Figures]
    groups: Mapping[Key, Figures]
    others: Figures | None
    share: float
    deletions: Deletions


def percentile(values: Iterable[int], fraction: float) -> int | None:
    """The smallest value that at least `fraction` of all values do not exceed; `None` without values."""
    ordered = sorted(values)
    return ordered[math.ceil(fraction * len(ordered)) - 1] if ordered else None


def usage_report(
    *, images: QuerySet[GeneratedImage], deleted: QuerySet[DeletedImage], period: Period, by: By = By.DAY
) -> UsageReport:
    """Add up what happened in a range of days.

    Args:
        images: The images that count.
        deleted: The deleted ones that count.
        period: Requests count by the day on which they were made.
        by: What to list.
    """
    steps, after = period.steps, midnight(period.last + timedelta(days=1))
    everything: list[Rows] = [images.order_by(), deleted.order_by()]
    sources = [rows.filter(created_at__gte=midnight(steps[0]), created_at__lt=after) for rows in everything]
    days = _by_day(everything, sources, steps, after)
    total = Figures()
    for figures in days.values():
        total += figures
    groups = {} if by == By.DAY else _groups(sources, _COLUMNS[by])
    share = min(1.0, MAX_DURATIONS / total.ready) if total.ready else 1.0
    for number, key, duration in _durations(sources, steps, _COLUMNS.get(by, ()), share):
        for line in (total, days[steps[number]], groups.get(key)):
            if line is not None:
                line.durations.append(duration)
    return UsageReport(
        period=period,
        by=by,
        total=total,
        days=days,
        groups=groups if by != By.DAY else {(day,): days[day] for day in reversed(steps) if days[day].requested},
        others=_others(total, groups) if groups else None,
        share=share,
        deletions=_deletions(images, deleted, midnight(steps[0]), after),
    )


# --- counting -----------------------------------------------------------------------------------------------


def _by_day(
    everything: Sequence[Rows], sources: Sequence[Rows], steps: Sequence[date], after: datetime
) -> dict[date, Figures]:
    """The figures of each step.

    A plain count and the sum of the costs are one walk along the index for each step; grouping all rows by their day
    would make the database sort them. Most pictures are ordinary, so only the other rows are looked at more closely.
    """
    days = {step: Figures() for step in steps}
    for unbounded, rows in zip(everything, sources, strict=True):
        special = rows.exclude(_ORDINARY).annotate(number=_step_number(steps))
        found = {number: figures for (number,), figures in _counts(special, ("number",))}
        for number, requested, known in _whole_steps(unbounded, steps, after):
            figures = found.get(number, Figures())
            figures.ready += max(requested - figures.requested, 0)  # rows may be deleted between the two queries
            figures.requested, figures.cost = requested, known or Decimal(0)
            days[steps[number]] += figures
    return days


def _whole_steps(rows: Rows, steps: Sequence[date], after: datetime) -> Iterator[tuple[int, int, Decimal | None]]:
    """Each step's number, its rows, and what they cost as far as it is known.

    `rows` must have no condition on the time yet: SQLite would walk from the first one's beginning in every step.
    """
    sums: dict[str, Expression] = {"requested": Count("*"), "known": Sum("cost")}
    # Prepared once: that takes longer than what differs from step to step.
    counted = rows.annotate(all=Value(1)).values("all").annotate(**sums)
    edges = [*map(midnight, steps), after]
    one_each = [
        counted.filter(created_at__gte=since, created_at__lt=before)
        .annotate(number=Value(number))
        .values_list("number", *sums)
        for number, (since, before) in enumerate(pairwise(edges))
    ]
    for start in range(0, len(one_each), MAX_UNION):
        first, *others = one_each[start : start + MAX_UNION]
        # In Django 6.1 a union has the model's ordering again, which no database accepts.
        yield from first.union(*others, all=True).order_by()


def _groups(sources: Sequence[Rows], columns: Sequence[str]) -> dict[Key, Figures]:
    """The lines that cost most."""
    found: defaultdict[Key, Figures] = defaultdict(Figures)
    seen: list[set[Key]] = []
    for rows in sources:
        largest = dict(_counts(rows, columns, limit=MAX_GROUPS))
        seen.append(set(largest))
        for key, figures in largest.items():
            found[key] += figures
    for rows, known in zip(sources, seen, strict=True):
        if len(known) == MAX_GROUPS:  # what is among the largest of the one may be a small one of the other
            for key, figures in _counts(_of_keys(rows, columns, found.keys() - known), columns):
                found[key] += figures
    ordered = sorted(found.items(), key=lambda item: (-item[1].cost, -item[1].requested, str(item[0])))
    return dict(ordered[:MAX_GROUPS])


def _of_keys(rows: Rows, columns: Sequence[str], keys: Iterable[Key]) -> Rows:
    condition = Q(pk__in=())
    for key in keys:
        condition |= Q(**dict(zip(columns, key, strict=True)))
    return rows.filter(condition)


def _others(total: Figures, groups: Mapping[Key, Figures]) -> Figures | None:
    listed = Figures()
    for figures in groups.values():
        listed += figures
    return total - listed if listed.requested < total.requested else None


def _counts(rows: Rows, columns: Sequence[str], *, limit: int | None = None) -> Iterator[tuple[Key, Figures]]:
    """The figures of each combination of `columns`; of those that cost most if `limit` is set."""
    sums = _sums(rows.model)
    found = rows.values(*columns).annotate(**sums)
    if limit is not None:
        found = found.order_by(F("known").desc(nulls_last=True), F("requested").desc(), *columns)[:limit]
    for row in found:
        counted = {name: row[name] for name in sums if name != "known"}
        figures = Figures(**counted, cost=row["known"] or Decimal(0))
        ended = figures.ready + figures.running + figures.providers_failed + figures.refused
        figures.failed = figures.requested - ended
        yield tuple(row[column] for column in columns), figures


def _sums(model: type[Any]) -> dict[str, Expression]:
    """What is added up. Only columns that indexes hold are read; `Count("pk")` would read the rows as well."""
    made = Q(status__in=(Status.READY, Status.DELETING), error_code="")
    imported = Q(status=Status.READY, duration_ms=None)
    paid = ~Q(status=Status.PENDING) & ~Q(error_code__in=UNPAID) & ~imported
    sums: dict[str, Expression] = {
        "requested": Count("*"),
        "ready": _count(made),
        "providers_failed": _count(Q(error_code__in=PROVIDERS_OWN)),
        "refused": _count(Q(error_code__in=NOBODYS)),
        "known": Sum("cost"),
        "unknown": _count(Q(cost=None) & paid),
        "at_least": _count(Q(cost_basis=CostBasis.AT_LEAST)),
    }
    if model is GeneratedImage:  # as in the API and the list, one whose process was stopped has failed
        late = Q(deadline_at__lt=timezone.now() - STALE_AFTER)
        sums["running"] = _count(Q(status=Status.PENDING) & ~late)
        sums["unknown"] = _count(Q(cost=None) & (paid | (Q(status=Status.PENDING) & late)))
    return sums


def _count(condition: Q) -> Count:
    return Count(Value(1), filter=condition)


def _durations(
    sources: Iterable[Rows], steps: Sequence[date], columns: Sequence[str], share: float
) -> Iterator[tuple[int, Key, int]]:
    """Step, key and milliseconds of a random share of the pictures: primary keys are random numbers."""
    for rows in sources:
        pictures = rows.filter(status=Status.READY, duration_ms__isnull=False)
        if share < 1:
            pictures = pictures.filter(pk__lt=uuid.UUID(int=int(share * 2**128)))
        numbered = pictures.annotate(number=_step_number(steps))
        for number, duration, *key in numbered.values_list("number", "duration_ms", *columns):
            yield number, tuple(key), duration


def _deletions(
    images: QuerySet[GeneratedImage], deleted: QuerySet[DeletedImage], since: datetime, before: datetime
) -> Deletions:
    found = deleted.order_by().filter(deleted_at__gte=since, deleted_at__lt=before)
    counts = found.aggregate(every=Count("*"), first=_count(Q(at_first_try=True)))
    return Deletions(
        at_first_try=counts["first"],
        later=counts["every"] - counts["first"],
        unfinished=images.order_by().filter(status=Status.DELETING).count(),
    )


def _step_number(steps: Sequence[date], low: int = 0) -> Expression | Value:
    """The position of a row's day in `steps`, found by halving.

    Django's `TruncDate` calls into Python for each row on SQLite, which takes nearly twice as long, and MySQL answers
    it with NULL if its time zone tables are empty.
    """
    if len(steps) == 1:
        return Value(low, output_field=IntegerField())
    half = len(steps) // 2
    return Case(
        When(created_at__lt=midnight(steps[half]), then=_step_number(steps[:half], low)),
        default=_step_number(steps[half:], low + half),
        output_field=IntegerField(),
    )


def midnight(day: date) -> datetime:
    """The beginning of a day, in the current time zone if the host uses time zones."""
    midnight = datetime.combine(day, time.min)
    return timezone.make_aware(midnight) if settings.USE_TZ else midnight


def local_date(moment: datetime) -> date:
    """The day of a moment in the current time zone; as it is if the host sets `USE_TZ = False`."""
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()


# --- the same as plain records, for programs -------------------------------------------------------------------


def records(report: UsageReport) -> list[dict[str, Any]]:
    """The lines of a report with stable names, plain values and, if there are several, a total.

    Days are `2026-11-28`; months are called by their first day. Durations are in seconds, success is a share. What is
    unknown is `None`.
    """
    names = key_names(report)
    heads = list(names.values())
    lines = [{**names[key], **_record(figures)} for key, figures in report.groups.items()]
    columns = heads[0] if heads else {report.by.value: ""}
    for label, figures in (("(others)", report.others), ("(total)", report.total)):
        if figures is not None and lines:
            lines.append({**dict.fromkeys(columns, ""), next(iter(columns)): label, **_record(figures)})
    return lines


def key_names(report: UsageReport) -> dict[Key, dict[str, str]]:
    """What to call each line of a report."""
    if report.by == By.DAY:
        return {key: {"day": key[0].isoformat()} for key in report.groups}
    if report.by == By.MODEL:
        return {key: {"provider": key[0], "model": key[1]} for key in report.groups}
    if report.by == By.ITEM:
        return {key: {"content_item": key[0]} for key in report.groups}
    names = user_names(key[0] for key in report.groups)
    return {key: {"user": names[key[0]]} for key in report.groups}


def user_names(keys: Iterable[Any]) -> dict[Any, str]:
    """The names of users by their primary keys, from the users' own database. A user who is gone is a number."""
    model = get_user_model()
    wanted = list(keys)
    known = model._base_manager.using(router.db_for_read(model)).in_bulk([key for key in wanted if key is not None])
    return {key: "" if key is None else str(known[key]) if key in known else f"#{key}" for key in wanted}


def _record(figures: Figures) -> dict[str, Any]:
    median, ninetieth, success = figures.median_ms, figures.ninetieth_ms, figures.success
    return {
        "cost_usd": None if figures.is_cost_unknown else str(figures.cost.quantize(Decimal("0.0001"))),
        "cost_at_least": bool(figures.at_least or figures.unknown),
        "unknown_cost": figures.unknown,
        "requested": figures.requested,
        "made": figures.ready,
        "own_failures": figures.failed,
        "provider_failures": figures.providers_failed,
        "refused": figures.refused,
        "in_progress": figures.running,
        "success": None if success is None else round(success, 4),
        "median_seconds": None if median is None else median / 1000,
        "p90_seconds": None if ninetieth is None else ninetieth / 1000,
    }
