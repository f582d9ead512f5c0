"""The usage page: how many images were made, how well, how fast and for how many tokens, by provider, model and day.

It takes two queries, whatever the number of images. The first counts in the database. Percentiles would cost SQLite
seconds there, so the second fetches the durations of the newest `MAX_DURATIONS` pictures; the page says if those are
not all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Case, Count, Expression, FloatField, IntegerField, Q, QuerySet, Sum, Value, When
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext
from django.views.decorators.http import require_safe

from ..exceptions import ProviderFailure
from ..models import STALE_AFTER, GeneratedImage, Status
from .columns import NOTHING, local, seconds

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
else:
    AdminBase = object

#: The ranges to choose from, in days; the first is the default.
RANGES = (30, 7, 90)
#: What users were promised: the share of successes, and the most that nine in ten pictures take.
PROMISED_SUCCESS, PROMISED_MS = 0.95, 30_000
#: Pictures whose durations are looked at: about a tenth of a second on SQLite.
MAX_DURATIONS = 10_000
#: Where providers report all tokens of a request: OpenAI's name, and Gemini's.
TOKEN_NAMES = ("total_tokens", "total_token_count")
#: More tokens than there can be. Comparing keeps out everything but numbers, on which a cast would fail.
TOO_MANY_TOKENS = 10**15
#: The failure that is neither the provider's fault nor ours: its safety system refused the caller's text.
REFUSED = "content_rejected"
#: Failures that a provider reports and only the operator can fix.
OPERATORS = {
    "provider_auth",
    "provider_model_unavailable",
    "provider_not_configured",
    "provider_quota_exhausted",
}


def _codes(parent: type[ProviderFailure]) -> set[str]:
    return {parent.code}.union(*(_codes(child) for child in parent.__subclasses__()))


#: Failures that providers answer for. They do not count against the promise that was made to users.
PROVIDERS_OWN = frozenset(_codes(ProviderFailure) - {REFUSED, ProviderFailure.code} - OPERATORS)


class Usage(AdminBase):
    """The page; a part of the admin class."""

    @method_decorator(require_safe)
    def usage_view(self, request: HttpRequest) -> HttpResponse:
        """The figures of the last days, as tables.

        Raises:
            PermissionDenied: This user may not view images.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = request.GET.get("days", "")
        days = int(asked) if asked in map(str, RANGES) else RANGES[0]
        images = self.get_queryset(request)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Ledger of images"),
            "days": days,
            "ranges": sorted(RANGES),
            "deleting": images.filter(status=Status.DELETING).count(),
            "promised_success": as_percentage(PROMISED_SUCCESS),
            "promised_seconds": number_format(PROMISED_MS // 1000),
            **_tables(usage_report(images, days)),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/images/usage.html", context)


# --- counting -----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Figures:
    """Counts of images, added up with `+=`.

    Attributes:
        requested: All of them.
        ready: Those with a picture.
        providers_failed: Failed for a reason that the provider answers for.
        refused: The provider's safety system refused the text.
        failed: Every other failure: ours, the operator's, or a process that was stopped.
        running: Being generated, or being deleted.
        tokens: As reported; `None` if no provider reported any, which is unknown and not zero.
        unreported: Pictures for which the provider reported no usage.
        durations: Of pictures, in milliseconds; only of the newest ones if there are very many.
    """

    requested: int = 0
    ready: int = 0
    providers_failed: int = 0
    refused: int = 0
    failed: int = 0
    running: int = 0
    tokens: int | None = None
    unreported: int = 0
    durations: list[int] = field(default_factory=list)

    def __iadd__(self, other: Figures) -> Figures:
        for item in fields(self):
            own, others = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, own if others is None else others if own is None else own + others)
        return self

    @property
    def success(self) -> float | None:
        """The share that succeeded, leaving out what providers failed or refused; `None` if nothing is left."""
        counted = self.ready + self.failed
        return self.ready / counted if counted else None

    @property
    def median_ms(self) -> int | None:
        """Half of the pictures took no longer than this."""
        return percentile(self.durations, 0.5)

    @property
    def ninetieth_ms(self) -> int | None:
        """Nine in ten pictures took no longer than this."""
        return percentile(self.durations, 0.9)


@dataclass(kw_only=True)
class UsageReport:
    """The figures of a range of days.

    Attributes:
        by_model: By provider and model, sorted.
        by_day: By day (the newest first), provider and model.
        total: Everything together.
        durations_since: The oldest moment whose durations were looked at; `None` if all were.
    """

    by_model: dict[tuple[str, str], Figures]
    by_day: dict[tuple[date, str, str], Figures]
    total: Figures
    durations_since: datetime | None


def percentile(values: Iterable[int], fraction: float) -> int | None:
    """The smallest value that at least `fraction` of all values do not exceed; `None` without values."""
    ordered = sorted(values)
    return ordered[math.ceil(fraction * len(ordered)) - 1] if ordered else None


def usage_report(images: QuerySet[GeneratedImage], days: int) -> UsageReport:
    """Add up the figures of the last `days` days, today included, in the current time zone.

    Args:
        images: The images that count.
        days: At least 1.
    """
    today = local(timezone.now()).date()
    dates = [today - timedelta(days=days - 1 - number) for number in range(days)]
    rows = images.order_by().filter(created_at__gte=_midnight(dates[0]))
    by_day: defaultdict[tuple[date, str, str], Figures] = defaultdict(Figures)
    for (number, provider, model), figures in _counts(rows, dates):
        by_day[dates[number], provider, model] += figures
    since = _add_durations(rows, by_day)
    by_model: defaultdict[tuple[str, str], Figures] = defaultdict(Figures)
    total = Figures()
    for (_day, provider, model), figures in by_day.items():
        by_model[provider, model] += figures
        total += figures
    ordered = sorted(by_day.items(), key=lambda item: (-item[0][0].toordinal(), item[0][1:]))
    return UsageReport(
        by_model=dict(sorted(by_model.items())), by_day=dict(ordered), total=total, durations_since=since
    )


def _counts(rows: QuerySet[GeneratedImage], dates: Sequence[date]) -> Iterator[tuple[tuple[int, str, str], Figures]]:
    groups = rows.annotate(number=_day_number(dates)).values_list(
        "number", "provider", "model", "status", "error_code"
    )
    late = Q(deadline_at__lt=timezone.now() - STALE_AFTER)
    counted = groups.annotate(
        requested=Count("id"), late=Count("id", filter=late), tokens=Sum(_reported_tokens()), reported=Count("usage")
    )
    for number, provider, model, status, code, requested, stopped, tokens, reported in counted:
        figures = Figures(requested=requested)
        if status == Status.READY:
            figures.ready, figures.unreported = requested, requested - reported
        elif status == Status.FAILED:
            setattr(figures, _blame(code), requested)
        elif status == Status.PENDING:  # as in the API and the list, one whose process was stopped has failed
            figures.failed, figures.running = stopped, requested - stopped
        else:
            figures.running = requested
        figures.tokens = None if tokens is None else int(tokens)
        yield (number, provider, model), figures


def _blame(code: str) -> str:
    if code == REFUSED:
        return "refused"
    return "providers_failed" if code in PROVIDERS_OWN else "failed"


def _add_durations(rows: QuerySet[GeneratedImage], by_day: dict[tuple[date, str, str], Figures]) -> datetime | None:
    """Add the newest durations; returns the moment of the oldest of these if there are more."""
    newest = rows.filter(status=Status.READY, duration_ms__isnull=False).order_by("-created_at")
    found = list(newest.values_list("created_at", "provider", "model", "duration_ms")[: MAX_DURATIONS + 1])
    for created_at, provider, model, duration_ms in found[:MAX_DURATIONS]:
        by_day[local(created_at).date(), provider, model].durations.append(duration_ms or 0)
    return found[MAX_DURATIONS - 1][0] if len(found) > MAX_DURATIONS else None


def _day_number(dates: Sequence[date], low: int = 0) -> Expression | Value:
    """The position of a row's day in `dates`, found by halving.

    Django's `TruncDate` calls into Python for each row on SQLite, which takes nearly twice as long, and MySQL answers
    it with NULL if its time zone tables are empty.
    """
    if len(dates) == 1:
        return Value(low)
    half = len(dates) // 2
    return Case(
        When(created_at__lt=_midnight(dates[half]), then=_day_number(dates[:half], low)),
        default=_day_number(dates[half:], low + half),
        output_field=IntegerField(),
    )


def _reported_tokens() -> Expression:
    """The tokens that were reported, or NULL. On MariaDB every value that is not a number is zero."""
    return Coalesce(
        *(
            Case(
                When(
                    **{f"usage__{name}__gt": 0, f"usage__{name}__lt": TOO_MANY_TOKENS},
                    then=Cast(KT(f"usage__{name}"), FloatField()),
                )
            )
            for name in TOKEN_NAMES
        )
    )


def _midnight(day: date) -> datetime:
    """The beginning of a day, in the current time zone if the host uses time zones."""
    midnight = datetime.combine(day, time.min)
    return timezone.make_aware(midnight) if settings.USE_TZ else midnight


# --- the tables: figures rounded, with units, in the reader's language ----------------------------------------


def _tables(report: UsageReport) -> dict[str, Any]:
    since = report.durations_since
    return {
        "by_model": [_row(figures, provider=key[0], model=key[1]) for key, figures in report.by_model.items()],
        "by_day": [
            _row(figures, day=key[0], provider=key[1], model=key[2]) for key, figures in report.by_day.items()
        ],
        "total": _row(report.total, provider=gettext("Total")),
        "max_durations": _count(MAX_DURATIONS),
        "since": date_format(local(since), "SHORT_DATETIME_FORMAT") if since else "",
    }


def _row(figures: Figures, *, day: date | None = None, provider: str = "", model: str = "") -> dict[str, Any]:
    """A line of a table, and the query that lists its images."""
    names = ("requested", "ready", "failed", "providers_failed", "refused", "running")
    success, ninetieth = figures.success, figures.ninetieth_ms
    return {
        "day": day,
        "provider": provider,
        "model": model,
        "query": _query(day, provider, model) if provider and (day or model) else "",
        **{name: _count(getattr(figures, name)) for name in names},
        "success": as_percentage(success),
        "misses_success": success is not None and success < PROMISED_SUCCESS,
        "median": seconds(figures.median_ms),
        "ninetieth": seconds(ninetieth),
        "misses_time": ninetieth is not None and ninetieth > PROMISED_MS,
        "tokens": _tokens(figures),
    }


def as_percentage(share: float | None) -> str:
    """A share as `97.3 %`, rounded down so that a missed promise never looks kept; a dash for `None`."""
    if share is None:
        return NOTHING
    tenths = int(share * 1000 + 1e-9) / 10
    return gettext("%(number)s %%") % {"number": number_format(tenths, decimal_pos=0 if tenths == int(tenths) else 1)}


def _query(day: date | None, provider: str, model: str) -> str:
    wanted = {"provider": provider, "model": model} if model else {"provider": provider}
    if day:
        wanted |= {"created_at__year": str(day.year), "created_at__month": str(day.month)}
        wanted |= {"created_at__day": str(day.day)}
    return urlencode(wanted)


def _count(number: int) -> str:
    return number_format(number, force_grouping=True)


def _tokens(figures: Figures) -> str:
    if figures.tokens is None:
        return NOTHING
    text = _count(figures.tokens)
    if not figures.unreported:
        return text
    return gettext("%(tokens)s and %(number)s unknown") % {"tokens": text, "number": _count(figures.unreported)}
