"""The usage page: what was spent, what was made of it, how well and how fast; as charts, as a table and as CSV.

It follows the list's filters. `images.services.usage` counts; here figures become text and pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import FieldDoesNotExist, FieldError, PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from ..models import CostBasis, DeletedImage, GeneratedImage
from ..services.spreadsheets import BYTE_ORDER_MARK, csv_lines
from ..services.usage import (
    PROMISED_DELETIONS,
    PROMISED_MS,
    PROMISED_SUCCESS,
    By,
    Figures,
    Key,
    Period,
    UsageReport,
    midnight,
    records,
    usage_report,
    user_names,
)
from .columns import NOTHING, admin_url, dollars, seconds

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[GeneratedImage]
    DeletedBase = admin.ModelAdmin[DeletedImage]
else:
    AdminBase, DeletedBase = object, admin.ModelAdmin

#: The ranges to choose from, in days; the first is the default.
RANGES = (30, 7, 90, 365)
#: The parameters that are the page's own; all others are the list's filters.
OWN = ("days", "since", "until", "by", "format")
#: Those of the list that filter nothing.
PAGING = ("p", "o", "all")
#: What the figures are listed by, as a heading and as a column.
TABS = {
    By.DAY: (_("By day"), pgettext_lazy("usage", "day")),
    By.MODEL: (_("By model"), _("provider and model")),
    By.USER: (_("By user"), _("owner")),
    By.ITEM: (_("By content item"), _("content item")),
}
#: Amounts below this are shown with four digits behind the point.
SMALL = Decimal("0.1")


class Usage(AdminBase):
    """The page; a part of the admin class."""

    @method_decorator(require_safe)
    def usage_view(self, request: HttpRequest) -> HttpResponse:
        """The figures of a range of days.

        Raises:
            PermissionDenied: This user may not view images.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = _asked(request)
        try:
            images = _Filter.of(self, request, asked, self)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(f"?{urlencode(asked.query)}")
        deleted = _deleted(self, request, asked)
        report = usage_report(images=images.queryset, deleted=deleted, period=asked.period, by=asked.by)
        if request.GET.get("format") == "csv":
            return _csv(report)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": gettext("Usage"),
            **_choices(asked, images),
            **_page(report, images, admin_url(self, "changelist")),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/images/usage.html", context)

    @method_decorator(require_safe)
    def ledger_view(self, request: HttpRequest) -> HttpResponse:
        """The page's former address."""
        query = request.GET.urlencode()
        return HttpResponseRedirect(admin_url(self, "usage") + (f"?{query}" if query else ""))


# --- what is asked for --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the address asks for; `problem` says why a range of dates was not understood."""

    period: Period
    by: By
    days: int | None
    problem: str = ""

    @property
    def query(self) -> dict[str, str]:
        """The page's own parameters."""
        if self.days:
            return {"days": str(self.days), "by": self.by}
        return {"since": self.period.first.isoformat(), "until": self.period.last.isoformat(), "by": self.by}


def _asked(request: HttpRequest) -> _Asked:
    given = request.GET
    by = By(given["by"]) if given.get("by") in list(By) else By.DAY
    since, until, problem = given.get("since", ""), given.get("until", ""), ""
    if since or until:
        try:
            return _Asked(period=Period.parse(since, until), by=by, days=None)
        except (ValueError, OverflowError):
            problem = gettext("This is not a range of dates. The last days are shown instead.")
    days = next((days for days in RANGES if str(days) == given.get("days")), RANGES[0])
    return _Asked(period=Period.of_days(days), by=by, days=days, problem=problem)


class _Filter(ChangeList):
    """The list's filters and search without its rows."""

    def get_results(self, request: HttpRequest) -> None:
        """Nothing: neither a page nor its number of rows is needed."""

    @classmethod
    def of(
        cls,
        model_admin: admin.ModelAdmin[Any],
        request: HttpRequest,
        asked: _Asked,
        listed: admin.ModelAdmin[GeneratedImage],
    ) -> _Filter:
        """The rows of `model_admin` that the request's parameters ask for, by the filters of the list (`listed`).

        Raises:
            IncorrectLookupParameters: They ask for something that images do not have.
        """
        others = copy.copy(request)
        given = request.GET.copy()
        for name in (*OWN, *PAGING):
            given.pop(name, None)
        others.GET = given  # type: ignore[assignment]
        model = model_admin.model
        filters = [each for each in listed.get_list_filter(request) if _applies(each, model)]
        fields = model_admin.get_search_fields(request)
        found = cls(others, model, ("pk",), (), filters, "created_at", fields, False, 1, 1, (), model_admin, (), None)
        found.params |= asked.query  # so that the filters' links keep them
        return found

    def active(self) -> list[str]:
        """The filters that are set, in words."""
        chosen = [(spec, [each for each in spec.choices(self) if each["selected"]]) for spec in self.filter_specs]
        words = [
            f"{spec.title}: {choice['display']}"
            for spec, choices in chosen
            for choice in choices
            if set(spec.expected_parameters() or ()) & set(self.params)
        ]
        known = {name for spec in self.filter_specs for name in spec.expected_parameters() or ()}
        rest = sorted(set(self.params) - known - set(OWN))
        return words + [f"{name.removesuffix('__exact')}: {self.params[name]}" for name in rest]


def _applies(list_filter: Any, model: type[Any]) -> bool:
    """Whether a filter of the list's can be applied to rows of `model`."""
    name = list_filter[0] if isinstance(list_filter, list | tuple) else list_filter
    return callable(name) or name in {field.name for field in model._meta.get_fields()}


class _DeletedImages(DeletedBase):
    """What deleted images left, as far as the list's filters go. Their titles are gone."""

    search_fields = ("content_item_id__istartswith",)


def _deleted(images: admin.ModelAdmin[GeneratedImage], request: HttpRequest, asked: _Asked) -> QuerySet[DeletedImage]:
    """The deleted images that the filters ask for; none if they ask for what is not kept of those."""
    model_admin = _DeletedImages(DeletedImage, images.admin_site)
    try:
        found: QuerySet[DeletedImage] = _Filter.of(model_admin, request, asked, images).queryset
        return found
    except (IncorrectLookupParameters, FieldDoesNotExist, FieldError):
        return DeletedImage.objects.none()


# --- as CSV ---------------------------------------------------------------------------------------------------


def _csv(report: UsageReport) -> HttpResponse:
    lines = records(report)
    columns = list(lines[0]) if lines else [report.by.value]
    name = f"usage-by-{report.by.value}-{report.period.first}-{report.period.last}.csv"
    return HttpResponse(
        [BYTE_ORDER_MARK, *csv_lines(columns, lines)],
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"},
    )


# --- as a page: figures rounded, with units, in the reader's language -------------------------------------------


def _choices(asked: _Asked, images: _Filter) -> dict[str, Any]:
    """The ranges, tabs and filters to choose from, each with its link."""
    ranges = [(days, images.get_query_string({"days": days}, ["since", "until"])) for days in sorted(RANGES)]
    tabs = [(by, TABS[by][0], images.get_query_string({"by": by})) for by in By]
    specs = [spec for spec in images.filter_specs if "created_at__gte" not in (spec.expected_parameters() or ())]
    filters = [{"title": spec.title, "choices": list(spec.choices(images))} for spec in specs]
    kept = {name: value for name, value in images.params.items() if name not in {"days", "since", "until"}}
    return {
        "asked": asked,
        "ranges": ranges,
        "tabs": tabs,
        "filters": filters,
        "active": images.active(),
        "all_link": f"?{urlencode(asked.query)}",
        "csv_link": images.get_query_string({"format": "csv"}),
        "kept": kept,
        "list_query": images.get_query_string(remove=list(OWN)),
        "zone": timezone.get_current_timezone_name(),
    }


def _page(report: UsageReport, images: _Filter, list_address: str) -> dict[str, Any]:
    deletions = report.deletions
    return {
        "by": report.by,
        "tab": TABS[report.by][1],
        "heading": gettext("By month") if report.by == By.DAY and report.period.in_months else TABS[report.by][0],
        "total": _line(report.total, gettext("Total")),
        "rows": _lines(report, images, list_address),
        "charts": charts(report),
        "deletion_success": as_percentage(deletions.success),
        "deletions": _count(deletions.at_first_try + deletions.later),
        "unfinished": deletions.unfinished,
        "misses_deletions": deletions.misses_promise,
        "promised_success": as_percentage(PROMISED_SUCCESS),
        "promised_deletions": as_percentage(PROMISED_DELETIONS),
        "promised_seconds": number_format(PROMISED_MS // 1000),
        "share": as_percentage(report.share) if report.share < 1 else "",
    }


def _lines(report: UsageReport, images: _Filter, list_address: str) -> list[dict[str, Any]]:
    names = _names(report)
    lines = []
    for key, figures in report.groups.items():
        query = images.get_query_string(_conditions(report, key), [*OWN, "created_at"])
        lines.append({**_line(figures, *names[key]), "link": list_address + query if figures.requested else ""})
    if report.others is not None:
        lines.append(_line(report.others, gettext("All others")))
    return lines


def _names(report: UsageReport) -> dict[Key, tuple[str, str]]:
    """What each line is called, in one or two lines of text."""
    if report.by == By.DAY:
        form = "YEAR_MONTH_FORMAT" if report.period.in_months else "SHORT_DATE_FORMAT"
        return {key: (date_format(key[0], form), "") for key in report.groups}
    if report.by == By.MODEL:
        return {key: (key[0] or gettext("no provider was asked"), key[1]) for key in report.groups}
    if report.by == By.ITEM:
        return {key: (key[0], "") for key in report.groups}
    users = user_names(key[0] for key in report.groups)
    return {key: (users[key[0]] or gettext("no user"), "") for key in report.groups}


def _conditions(report: UsageReport, key: Key) -> dict[str, str]:
    """The list's parameters that show the images of a line."""
    if report.by == By.DAY:
        units = ("year", "month") if report.period.in_months else ("year", "month", "day")
        return {f"created_at__{unit}": str(getattr(key[0], unit)) for unit in units}
    since, before = midnight(report.period.first), midnight(report.period.last + timedelta(days=1))
    wanted = {"created_at__gte": str(since), "created_at__lt": str(before)}
    if report.by == By.MODEL:
        return wanted | {"provider": key[0], "model": key[1]}
    if report.by == By.ITEM:
        return wanted | {"content_item_id": key[0]}
    return wanted | ({"owner__isnull": "True"} if key[0] is None else {"owner__id__exact": str(key[0])})


def _line(figures: Figures, name: str, second: str = "") -> dict[str, Any]:
    counts = ("requested", "ready", "failed", "providers_failed", "refused", "running")
    return {
        "name": name,
        "second": second,
        "cost": money(figures),
        **{count: _count(getattr(figures, count)) for count in counts},
        "success": as_percentage(figures.success),
        "misses_success": figures.misses_success,
        "median": seconds(figures.median_ms),
        "ninetieth": seconds(figures.ninetieth_ms),
        "misses_time": figures.misses_time,
    }


def money(figures: Figures) -> str:
    """What was spent. Unknown is never shown as zero: `at least $12.40, and 3 of unknown cost`."""
    if not figures.requested:
        return NOTHING
    if figures.is_cost_unknown:
        return gettext("unknown")
    text = dollars(figures.cost, CostBasis.AT_LEAST if figures.at_least else "", places=_places(figures.cost))
    if not figures.unknown:
        return text
    sentence = ngettext(
        "%(money)s, and %(number)s of unknown cost", "%(money)s, and %(number)s of unknown cost", figures.unknown
    )
    return sentence % {"money": text, "number": _count(figures.unknown)}


def _places(amount: Decimal) -> int:
    """The digits behind the point: cents, and more only of a small amount."""
    return 4 if 0 < amount < SMALL else 2


def as_percentage(share: float | None) -> str:
    """A share as `97.3 %`, rounded down so that a missed promise never looks kept; a dash for `None`."""
    if share is None:
        return NOTHING
    tenths = int(share * 1000 + 1e-9) / 10
    return gettext("%(number)s %%") % {"number": number_format(tenths, decimal_pos=0 if tenths == int(tenths) else 1)}


def _count(number: int) -> str:
    return number_format(number, force_grouping=True)


# --- the charts, as SVG -----------------------------------------------------------------------------------------

#: A day's width and the height of a chart, in units of the picture, which is stretched to its place.
STEP, HEIGHT = 10, 100
#: The height of the bar of a day of which nothing is known.
STUB = 6.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar of a chart, and what is said about it. `is_hatched` tells two kinds apart without colour."""

    x: int
    top: str
    size: str
    title: str
    is_hatched: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Bars from left to right; the same figures are in the table."""

    id: str
    title: str
    bars: list[Bar]
    width: int
    highest: str
    summary: str
    note: str = ""
    line: str | None = None


def charts(report: UsageReport) -> list[Chart]:
    """What was spent, made and failed, and how long it took, by day."""
    failures = gettext("solid: our failures; hatched: failures of providers")
    promise = gettext("dashed: the promise")
    unknown = any(figures.unknown or figures.at_least for figures in report.days.values())
    note = gettext("hatched: a part is unknown") if unknown else ""
    return [
        _chart(report, "spend", gettext("Spent"), _dollars, _spent, note=note),
        _chart(report, "pictures", gettext("Pictures"), _count, lambda each: [(each.ready, False)]),
        _chart(report, "failures", gettext("Failures"), _count, _failures, note=failures),
        _chart(
            report, "time", gettext("90th percentile"), lambda ms: seconds(int(ms)),
            lambda each: [(each.ninetieth_ms or 0, False)], note=promise, mark=PROMISED_MS,
        ),
    ]  # fmt: skip


def _dollars(amount: Decimal) -> str:
    amount = Decimal(amount)  # the sum of no amounts is a plain 0
    return dollars(amount, places=_places(amount))


def _spent(figures: Figures) -> list[tuple[Any, bool]]:
    return [(None if figures.is_cost_unknown else figures.cost, bool(figures.unknown or figures.at_least))]


def _failures(figures: Figures) -> list[tuple[Any, bool]]:
    return [(figures.failed, False), (figures.providers_failed, True)]


def _chart(
    report: UsageReport,
    name: str,
    title: str,
    text: Callable[[Any], str],
    values: Callable[[Figures], list[tuple[Any, bool]]],
    *,
    note: str = "",
    mark: int | None = None,
) -> Chart:
    """A chart of one or two values a day, the second on top of the first."""
    days = [(day, values(figures)) for day, figures in report.days.items()]
    sums = {day: sum(value or 0 for value, _hatched in parts) for day, parts in days}
    highest_day = max(sums, key=lambda day: sums[day])
    highest = sums[highest_day]
    scale = max(float(highest), float(mark or 0) if highest else 0.0)
    form = "YEAR_MONTH_FORMAT" if report.period.in_months else "SHORT_DATE_FORMAT"
    sentence = gettext("The highest is %(value)s on %(day)s. The table has all figures.")
    shown = {"value": text(highest), "day": date_format(highest_day, form)}
    return Chart(
        id=name,
        title=title,
        bars=[
            bar
            for number, (day, parts) in enumerate(days)
            for bar in _bars(number, date_format(day, form), parts, scale, text)
        ],
        width=STEP * len(days),
        highest=text(highest) if highest else "",
        summary=f"{title}. {sentence % shown if highest else gettext('There is nothing to show.')}",
        note=note,
        line=f"{HEIGHT * (1 - mark / scale):.1f}" if mark and scale else None,
    )


def _bars(
    number: int, day: str, parts: Iterable[tuple[Any, bool]], scale: float, text: Callable[[Any], str]
) -> Iterable[Bar]:
    top = float(HEIGHT)
    for value, is_hatched in parts:
        if value == 0:
            continue
        height = STUB if value is None else max(HEIGHT * float(value) / scale, 1.0)
        top = max(top - height, 0.0)
        said = gettext("unknown") if value is None else text(value)
        # Formatted here: a template would write numbers with the reader's decimal comma.
        yield Bar(
            x=STEP * number, top=f"{top:.1f}", size=f"{height:.1f}", title=f"{day}: {said}", is_hatched=is_hatched
        )
