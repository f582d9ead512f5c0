"""The list of images and the page of one: read-only, apart from deleting and generating again."""

from __future__ import annotations

import calendar
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as delete_after_confirmation
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..api.views import non_atomic
from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from .columns import REASONS, ImageColumns, admin_url, local, url_name
from .gallery import Gallery, Tile, tiles
from .generate_again import GenerateAgain
from .usage import Usage

if TYPE_CHECKING:
    ImageAdminBase = admin.ModelAdmin[GeneratedImage]
else:
    ImageAdminBase = admin.ModelAdmin

#: The most images that one bulk action deletes. Django refuses forms with more than 1,000 fields, and the files are
#: removed one by one within the request.
MAX_DELETED_AT_ONCE = 500
#: Characters of a search that are looked at: each word becomes a condition, and databases limit those.
MAX_SEARCH = 200
#: The most years to choose from, the latest ones.
MAX_YEARS = 30
#: Columns that the list does not show and that may be long: a description has up to 100,000 characters.
NOT_LISTED = ("description", "prompt", "negative_prompt", "usage")
#: The folder that every image's file name, and so its address, starts with.
FOLDER = "draft-images/"


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
        if value not in Status.values or not isinstance(queryset, GeneratedImageQuerySet):
            return None
        return queryset.in_status(value)


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


class NameFilter(admin.AllValuesFieldListFilter):
    """By one of the names that occur, without the blank one of rows that never reached a provider."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lookup_choices = self.lookup_choices.exclude(**{self.field_path: ""})


class ImageChangeList(ChangeList):
    """The list's page. Only its rows lack the long columns: actions pass whole rows to signal receivers."""

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = self.queryset.defer(*NOT_LISTED)
        super().get_results(request)

    @cached_property
    def dates(self) -> dict[str, Any]:
        """What `admin/date_hierarchy.html` shows."""
        return date_hierarchy(self)

    @cached_property
    def tiles(self) -> list[Tile]:
        """The page's images for the gallery."""
        return tiles(self.result_list)


@admin.register(GeneratedImage)
class GeneratedImageAdmin(ImageColumns, Gallery, Usage, GenerateAgain, ImageAdminBase):
    """Shows what was requested, what came of it, what it took, and why it failed."""

    list_display = (
        "preview",
        "content_item",
        "status_and_reason",
        "provider_and_model",
        "created_by",
        "variant",
        "size",
        "duration",
    )
    list_display_links = ("preview",)
    list_filter = (
        StatusFilter, "created_at", "variant", ("provider", NameFilter), ("model", NameFilter), ReasonFilter,
    )  # fmt: skip
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    date_hierarchy = "created_at"
    search_fields = ("title", "content_item_id__istartswith")
    search_help_text = _("A content item, an image's id or address, or words of the title.")
    actions = ("generate_again", "delete_selected")
    readonly_fields = (
        "picture",
        "address",
        "status_now",
        "error",
        "duration",
        "attempts_table",
        "reported_usage",
        "file_name",
        "size",
    )
    view_on_site = False  # the page itself shows the picture and its address
    fieldsets = (
        (None, {"fields": ("picture", "address", "content_item_id", "title", "variant", "status_now", "error")}),
        (_("Provider"), {"fields": ("provider", "model", "duration", "attempts_table", "reported_usage")}),
        (_("Prompt"), {"fields": ("prompt", "negative_prompt", "style", "seed")}),
        (_("File"), {"fields": ("file_name", "mime_type", "size", "sha256")}),
        (_("Request"), {"fields": ("id", "owner", "created_at", "finished_at", "description")}),
    )

    # Named, since Django looks for them under the app's label, which a host may change.
    change_list_template = "admin/images/generatedimage/change_list.html"
    change_form_template = "admin/images/generatedimage/change_form.html"

    class Media:
        css = {"all": ("images/admin.css",)}
        js = ("images/admin.js",)

    # --- permissions ----------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never: images come from the API, the command or `generate_image`."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: GeneratedImage | None = None) -> bool:
        """Never, since the row records what was paid for. This makes every field read-only."""
        return False

    # --- finding --------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that leaves the long columns in the database."""
        return ImageChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[GeneratedImage]:
        """The images with their owners, which one query fetches from the users' own database.

        With `select_related`, hosts whose router keeps images and users in two databases would get a join that no
        database can answer. An owner whose user is gone counts as no owner.
        """
        users = get_user_model()
        owners = users._base_manager.using(router.db_for_read(users))
        return super().get_queryset(request).prefetch_related(Prefetch("owner", queryset=owners))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[GeneratedImage], search_term: str
    ) -> tuple[QuerySet[GeneratedImage], bool]:
        """Look for a whole content item, id or address first, which indexes answer, and then for words."""
        search_term = search_term[:MAX_SEARCH]
        if search_term:
            exact = queryset.filter(exact_matches(search_term))
            if exact.exists():
                return exact, False
        return super().get_search_results(request, queryset, search_term)

    # --- deleting -------------------------------------------------------------------------------------------

    @admin.action(permissions=["delete"], description=_("Delete selected images with their files"))
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> HttpResponseBase | None:
        """Delete after a confirmation; the files are removed when the transaction commits."""
        if queryset.count() > MAX_DELETED_AT_ONCE:
            sentence = ngettext(
                "At most %(count)d image can be deleted at once. Choose fewer.",
                "At most %(count)d images can be deleted at once. Choose fewer.",
                MAX_DELETED_AT_ONCE,
            )
            self.message_user(request, sentence % {"count": MAX_DELETED_AT_ONCE}, messages.ERROR)
            return None
        return delete_after_confirmation(self, request, queryset)

    # --- the page of one image ------------------------------------------------------------------------------

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: GeneratedImage | None = None,
    ) -> HttpResponse:
        """The page, with links to the images of its content item and to generating it again."""
        if obj is not None:
            everything = urlencode({"content_item_id": obj.content_item_id})
            context["item_address"] = f"{admin_url(self, 'changelist')}?{everything}"
            context["again_address"] = self.again_address([obj.pk]) if self.has_generate_permission(request) else ""
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- addresses ------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """The admin's own addresses, and those of the previews, the gallery, the usage and generating again."""
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:image_id>/preview/", wrap(self.preview_view, cacheable=True), name=url_name(self, "preview")),
            path("gallery/", wrap(self.gallery_view), name=url_name(self, "gallery")),
            path("ledger/", wrap(self.usage_view), name=url_name(self, "ledger")),
            # A provider works for up to a minute and a half: no transaction may be open meanwhile.
            path("again/", non_atomic(wrap(self.generate_again_view)), name=url_name(self, "again")),
            *super().get_urls(),
        ]


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
        choices = [
            link(date_format(at, "MONTH_DAY_FORMAT"), year=year, month=month, day=at.day)
            for at in days
            if first <= at <= last
        ]
        return {"show": True, "back": link(str(year), year=year), "choices": choices}
    chosen = {"title": capfirst(date_format(date(year, month, day), "MONTH_DAY_FORMAT"))}
    return {"show": True, "back": month_link(month), "choices": [chosen]}
