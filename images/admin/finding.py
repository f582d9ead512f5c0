"""Finding images in the admin: filters, search, and the dates to choose from."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property, reduce
from operator import or_
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db import connections, router
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import date_format, get_format
from django.utils.text import capfirst, smart_split, unescape_string_literal
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..failures import REASONS
from ..models import GeneratedImage, GeneratedImageQuerySet, Status, variant_choices
from .columns import Listed, local
from .gallery import Tile, tiles

#: The most years to choose from, the latest ones.
MAX_YEARS = 30
#: Columns that the list does not show and that may be long: a description has up to 100,000 characters.
NOT_LISTED = ("description", "context", "scene", "prompt", "negative_prompt", "usage")
#: Characters and words of a search that are looked at: each word becomes a condition, and databases limit those.
MAX_SEARCH, MAX_WORDS = 200, 10
#: The most users whose images a word of a search finds.
MAX_OWNERS = 500
#: Django's prefixes of search fields, and how a comparison is written as a regular expression.
_PREFIXES = {"^": "istartswith", "=": "iexact", "@": "search"}
_PATTERNS = {"icontains": "{}", "istartswith": "^{}", "iexact": "^{}$"}
#: The folder that every image's file name, and so its address, starts with.
FOLDER = "draft-images/"
#: The most providers, or models of one, to choose from.
MAX_NAMES = 100


class StatusFilter(admin.SimpleListFilter):
    """By status as the API reports it: a generation whose process was stopped counts as failed."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every status."""
        return [(str(value), label) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The rows in the chosen status; an unknown status filters nothing."""
        value = self.value()
        if value not in Status.values:
            return None
        if isinstance(queryset, GeneratedImageQuerySet):
            return queryset.in_status(value)
        return queryset.filter(status=value)  # what is left of deleted images


class ReasonFilter(admin.SimpleListFilter):
    """By the reason of a failure. The codes are known, so no query has to collect them."""

    title = _("failure reason")
    parameter_name = "error_code"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every reason, in the reader's alphabetical order."""
        return sorted(REASONS.items(), key=lambda item: str(item[1]))

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The failed rows with the chosen code. Naming the status lets the database use its index."""
        value = self.value()
        return queryset.filter(status=Status.FAILED, error_code=value) if value else None


class VariantFilter(admin.SimpleListFilter):
    """By variant: those that callers may use, and those that images have although they were taken away."""

    title = _("variant")
    parameter_name = "variant"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every variant, with its ratio if there is still one."""
        choices, images = variant_choices(), model_admin.get_queryset(request).prefetch_related(None)
        if isinstance(images, GeneratedImageQuerySet):
            choices += [(name, name) for name in images.other_variants(name for name, _label in choices)]
        return choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The images of the chosen variant."""
        return queryset.filter(variant=self.value()) if self.value() else None


class NameFilter(admin.AllValuesFieldListFilter):
    """By one of the names that occur, without the blank one of rows that never reached a provider."""

    def __init__(
        self, field: Any, request: HttpRequest, params: Any, model: Any, model_admin: Any, field_path: str
    ) -> None:
        super().__init__(field, request, params, model, model_admin, field_path)
        self._images: QuerySet[GeneratedImage] = model_admin.get_queryset(request).prefetch_related(None)

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """The names, which are looked up when they are shown."""
        self.lookup_choices: Any = names_that_occur(self._images, self.field_path)
        yield from super().choices(changelist)


class ImageChangeList(ChangeList):
    """The list's page. Only its rows lack the long columns: actions pass whole rows to signal receivers."""

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = self.queryset.defer(*NOT_LISTED)
        try:
            super().get_results(request)
        except IncorrectLookupParameters:  # the last page is empty after a deletion: the one before it is shown
            self.page_num = self.model_admin.get_paginator(request, self.queryset, self.list_per_page).num_pages
            super().get_results(request)
        if _shows_rows(request):
            for image in self.result_list:
                vars(image)["listed"] = Listed(filters=self.preserved_filters, is_popup=self.is_popup)

    @cached_property
    def dates(self) -> dict[str, Any]:
        """What `admin/date_hierarchy.html` shows."""
        return date_hierarchy(self)

    @cached_property
    def tiles(self) -> list[Tile]:
        """The page's images for the gallery."""
        return tiles(self.model_admin, self.result_list)


def _shows_rows(request: HttpRequest) -> bool:
    match = request.resolver_match
    return match is not None and str(match.url_name).endswith(("_changelist", "_gallery"))


# --- searching ----------------------------------------------------------------------------------------------


def word_matches(term: str, lookups: Sequence[str], *, using: str) -> Q:
    """The condition that every word of a search occurs, whatever its case, in one of these fields or in the owner.

    Args:
        term: What was typed. Words in quotes belong together.
        lookups: As `ModelAdmin.search_fields`.
        using: The database that is searched.
    """
    condition = Q()
    words = dict.fromkeys(unescape_string_literal(w) if w[0] == w[-1] in "'\"" else w for w in smart_split(term))
    for word in list(words)[:MAX_WORDS]:
        found = Q(owner__in=_owners(word))
        for name in lookups:
            found |= _contains(name, word, using)
        condition &= found
    return condition


def _contains(name: str, word: str, using: str) -> Q:
    """A field contains a word.

    SQLite compares only the letters of ASCII whatever their case. Its regular expressions are Python's, which know
    every alphabet; they cost a call for each row, so other words do without.
    """
    prefix, name = (name[0], name[1:]) if name[0] in _PREFIXES else ("", name)
    field, separator, lookup = name.rpartition("__")
    if not separator or lookup not in _PATTERNS:
        field, lookup = name, _PREFIXES.get(prefix, "icontains")
    if word.isascii() or connections[using].vendor != "sqlite" or lookup not in _PATTERNS:
        return Q(**{f"{field}__{lookup}": word})
    return Q(**{f"{field}__iregex": _PATTERNS[lookup].format(re.escape(word))})


def _owners(word: str) -> list[Any]:
    """The keys of the users whose name contains a word. Users may be in another database than images."""
    users = get_user_model()
    names = {field.name for field in users._meta.get_fields()}
    wanted = {users.USERNAME_FIELD, users.get_email_field_name(), "first_name", "last_name"} & names
    database = router.db_for_read(users)
    condition = reduce(or_, (_contains(name, word, database) for name in sorted(wanted)))
    found = users._base_manager.using(database).filter(condition)
    return list(found.order_by("pk").values_list("pk", flat=True)[:MAX_OWNERS])


def names_that_occur(images: QuerySet[GeneratedImage], column: str) -> list[str]:
    """Every provider or every model of `images`, sorted, without the blank one.

    From each name to the next is one step in the index on both. `SELECT DISTINCT` would read the whole index: half a
    second for a million images.

    Args:
        images: Where to look.
        column: `"provider"` or `"model"`.
    """
    providers = list(_steps(images, "provider"))
    if column == "provider":
        return providers
    found = {name for provider in providers for name in _steps(images.filter(provider=provider), column)}
    return sorted(found)[:MAX_NAMES]


def _steps(images: QuerySet[GeneratedImage], column: str) -> Iterator[str]:
    last = ""
    for _step in range(MAX_NAMES):
        after = images.filter(**{f"{column}__gt": last}).order_by(column)
        name = after.values_list(column, flat=True).first()
        if name is None:
            return
        yield name
        last = name


def exact_matches(term: str) -> Q:
    """The condition that finds an image by its content item, its id or its address; each has an index."""
    condition = Q(content_item_id=term)
    if FOLDER in term:
        condition |= Q(file=unquote(term[term.index(FOLDER) :]))
    try:
        condition |= Q(pk=UUID(term))
    except ValueError:
        return condition
    return condition


def date_hierarchy(cl: ChangeList) -> dict[str, Any]:
    """Years, months or days to choose from, from the oldest image to the newest, as Django's own template takes them.

    Django's tag asks the database for every distinct date, which SQLite answers with a call into Python for each row:
    half a second for 100,000 images. This takes two look-ups in an index, and also offers dates without images.
    """
    moments = cl.root_queryset.order_by("created_at").values_list("created_at", flat=True)
    oldest, newest = moments.first(), moments.last()
    if oldest is None or newest is None:
        return {"show": False}
    first, last = local(oldest).date(), local(newest).date()
    year, month, day = (int(cl.params.get(f"created_at__{unit}") or 0) for unit in ("year", "month", "day"))
    if not year:  # a month or day alone is a filter of its own
        year, month, day = first.year if first.year == last.year else 0, 0, 0
        month = first.month if year and first.month == last.month else 0

    def link(title: str, **chosen: int) -> dict[str, str]:
        query = {f"created_at__{unit}": str(number) for unit, number in chosen.items()}
        return {"title": capfirst(title), "link": cl.get_query_string(query, ["created_at__"])}

    def month_link(number: int) -> dict[str, str]:
        return link(date_format(date(year, number, 1), "YEAR_MONTH_FORMAT"), year=year, month=number)

    if not year:
        years = range(max(first.year, last.year - MAX_YEARS + 1), last.year + 1)
        return {"show": True, "choices": [link(str(number), year=number) for number in years]}
    if not month:
        shown = [m for m in range(1, 13) if (first.year, first.month) <= (year, m) <= (last.year, last.month)]
        return {"show": True, "back": link(gettext("All dates")), "choices": [month_link(m) for m in shown]}
    if not day:
        days = [date(year, month, number) for number in range(1, calendar.monthrange(year, month)[1] + 1)]
        choices = [link(month_day(at), year=year, month=month, day=at.day) for at in days if first <= at <= last]
        return {"show": True, "back": link(str(year), year=year), "choices": choices}
    chosen = {"title": capfirst(month_day(date(year, month, day)))}
    return {"show": True, "back": month_link(month), "choices": [chosen]}


def month_day(day: date) -> str:
    """`November 28`; in languages that bend the names of months, such as Russian, `28 ноября`."""
    return date_format(day, get_format("MONTH_DAY_FORMAT").replace("F", "E"))
