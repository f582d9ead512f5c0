"""The list of images and the page of one: read-only, apart from deleting and making again."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as delete_after_confirmation
from django.contrib.admin.views.main import ChangeList
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..api.views import non_atomic
from ..models import GeneratedImage, GeneratedImageQuerySet, Status
from .columns import PREVIEW_VIEW, REASONS, ImageColumns
from .dates import Periods, periods
from .gallery import Gallery, Tile, tiles
from .generate_again import AGAIN_VIEW, GenerateAgain, again_address, attach_owners
from .usage import Usage

if TYPE_CHECKING:
    ImageAdminBase = admin.ModelAdmin[GeneratedImage]
else:
    ImageAdminBase = admin.ModelAdmin

#: The most images that one bulk action deletes. Django refuses forms with more than 1,000 fields, and files go one by
#: one within the request.
MAX_DELETED_AT_ONCE = 500
#: Characters of a search that are looked at: each word becomes a condition, and databases limit those.
MAX_SEARCH = 200
#: What the list does not show and may be long: a description has up to 100,000 characters.
NOT_LISTED = ("description", "prompt", "negative_prompt", "usage")
#: The folder that every image's file name, and so its address, starts with.
FOLDER = "draft-images/"


class StatusFilter(admin.SimpleListFilter):
    """By status as the API tells it: a generation whose process was stopped counts as failed."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every status."""
        return [(str(value), label) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The rows in the chosen status; a status that does not exist filters nothing."""
        value = self.value()
        if value not in Status.values or not isinstance(queryset, GeneratedImageQuerySet):
            return None
        return queryset.in_status(value)


class ReasonFilter(admin.SimpleListFilter):
    """By why an image failed. The codes are known, so that no query has to collect them."""

    title = _("reason of the failure")
    parameter_name = "error_code"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        """Every reason, in the alphabet of the reader."""
        return sorted(REASONS.items(), key=lambda item: str(item[1]))

    def queryset(self, request: HttpRequest, queryset: QuerySet[GeneratedImage]) -> QuerySet[GeneratedImage] | None:
        """The failed rows with the chosen code; the status is named for the sake of its index."""
        value = self.value()
        return queryset.filter(status=Status.FAILED, error_code=value) if value else None


class NameFilter(admin.AllValuesFieldListFilter):
    """By one of the names that occur, leaving out the blank one of rows that never got so far."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lookup_choices = self.lookup_choices.exclude(**{self.field_path: ""})


class ImageChangeList(ChangeList):
    """The list's page. Actions get whole rows, since signals hand those to others."""

    def get_results(self, request: HttpRequest) -> None:
        self.queryset = self.queryset.defer(*NOT_LISTED)
        super().get_results(request)
        attach_owners(self.result_list)

    @cached_property
    def periods(self) -> Periods:
        """Days, months or years to choose from."""
        return periods(self)

    @cached_property
    def tiles(self) -> list[Tile]:
        """The page's images for the gallery."""
        return tiles(self.result_list)


@admin.register(GeneratedImage)
class GeneratedImageAdmin(ImageColumns, Gallery, Usage, GenerateAgain, ImageAdminBase):
    """Shows what was asked for, what became of it, what it took, and why it failed."""

    list_display = (
        "preview",
        "content_item",
        "status_and_reason",
        "painter",
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
    actions = ("make_again", "delete_selected")
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
        (_("Who painted"), {"fields": ("provider", "model", "duration", "attempts_table", "reported_usage")}),
        (_("What was asked for"), {"fields": ("prompt", "negative_prompt", "style", "seed")}),
        (_("File"), {"fields": ("file_name", "mime_type", "size", "sha256")}),
        (_("Request"), {"fields": ("id", "owner", "created_at", "finished_at", "description")}),
    )

    class Media:
        css = {"all": ("images/admin.css",)}
        js = ("images/admin.js",)

    # --- who may do what ----------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: images are made by the API, the command or `generate_image`."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: GeneratedImage | None = None) -> bool:
        """Nobody: the row is the ledger of what was paid for. It makes every field read-only."""
        return False

    # --- finding --------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that leaves the long columns in the database."""
        return ImageChangeList

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> GeneratedImage | None:
        """The image with its owner."""
        image = super().get_object(request, object_id, from_field)
        attach_owners([image] if image else [])
        return image

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
        """Delete after a confirmation; the files go when the transaction commits."""
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
        """The page, with links to everything of its content item and to making it again."""
        if obj is not None:
            everything = urlencode({"content_item_id": obj.content_item_id})
            context["item_address"] = f"{reverse('admin:images_generatedimage_changelist')}?{everything}"
            context["again_address"] = again_address([obj.pk]) if self.has_make_permission(request) else ""
        return super().render_change_form(request, context, add, change, form_url, obj)

    # --- addresses and previews -----------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """The admin's own addresses, and those of the previews, the gallery, the ledger and making again."""
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:image_id>/preview/", wrap(self.preview_view, cacheable=True), name=PREVIEW_VIEW),
            path("gallery/", wrap(self.gallery_view), name="images_generatedimage_gallery"),
            path("ledger/", wrap(self.ledger_view), name="images_generatedimage_ledger"),
            # A provider works for up to a minute and a half: no transaction may be open meanwhile.
            path("again/", non_atomic(wrap(self.make_again_view)), name=AGAIN_VIEW),
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
