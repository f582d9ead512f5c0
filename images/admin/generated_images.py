"""The admin of images: made, shown, made again and deleted there, but never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from ..models import GeneratedImage
from .columns import ImageColumns, admin_url, url_name
from .deleting import Deleting
from .describing import Describing
from .export import Export
from .finding import (
    MAX_SEARCH,
    ImageChangeList,
    NameFilter,
    ReasonFilter,
    StatusFilter,
    VariantFilter,
    exact_matches,
    word_matches,
)
from .gallery import Gallery
from .generate_again import GenerateAgain
from .progress import Progress
from .usage import Usage

if TYPE_CHECKING:
    ImageAdminBase = admin.ModelAdmin[GeneratedImage]
else:
    ImageAdminBase = admin.ModelAdmin


@admin.register(GeneratedImage)
class GeneratedImageAdmin(
    ImageColumns, Describing, Export, Gallery, Usage, GenerateAgain, Deleting, Progress, ImageAdminBase
):
    """Shows what was requested, what came of it, what it took, and why it failed."""

    list_display = ("preview", "content_item", "status_and_reason", "provider_and_model", "created_by")
    list_filter = (
        StatusFilter, "created_at", VariantFilter, ("provider", NameFilter), ("model", NameFilter), ReasonFilter,
    )  # fmt: skip
    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    date_hierarchy = "created_at"
    search_fields = ("title", "prompt", "content_item_id__istartswith")
    search_help_text = _("A content item, an image's id or address, or words of the title, the prompt or the owner.")
    actions = ("generate_again", "delete_selected")
    readonly_fields = (
        "picture",
        "described",
        "status_now",
        "what_to_do",
        "address",
        "used_in",
        "made_by",
        "requested",
        "shape",
        "versions",
        "error",
        "duration",
        "exact_cost",
        "attempts_table",
        "reported_usage",
        "file_name",
        "size",
        "origin",
        "title_text",
        "item_text",
        "description_text",
        "context_text",
        "scene_text",
        "prompt_text",
        "negative_prompt_text",
    )
    view_on_site = False  # the page itself shows the picture and its address
    fieldsets = (
        (None, {"classes": ("images-large",), "fields": ("picture",)}),
        (
            _("Details"),
            {
                "fields": (
                    "status_now", "what_to_do", "address", "used_in", "requested", "made_by", "exact_cost",
                    "described", "description_text",
                )
            },
        ),
        (_("Other versions of this content item"), {"classes": ("images-large",), "fields": ("versions",)}),
        (
            _("Technical details"),
            {
                "classes": ("collapse",),
                "fields": (
                    "id", "item_text", "title_text", "shape", "error", "attempts_table", "reported_usage",
                    "provider", "model", "duration", "prompt_text", "negative_prompt_text",
                    "style", "seed", "scene_text", "scene_model", "context_text",
                    "file_name", "mime_type", "size", "sha256", "origin", "content_credentials",
                    "created_at", "started_at", "finished_at",
                ),
            },
        ),
    )  # fmt: skip

    # Named, since Django looks for them under the app's label, which a host may change.
    change_list_template = "admin/images/generatedimage/change_list.html"
    change_form_template = "admin/images/generatedimage/change_form.html"

    class Media:
        css = {"all": ("images/admin.css",)}
        js = ("images/admin.js",)

    # --- permissions ----------------------------------------------------------------------------------------

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
        search_term = search_term[:MAX_SEARCH].replace("\x00", "").strip()
        if not search_term:
            return queryset, False
        exact = queryset.filter(exact_matches(search_term))
        if exact.exists():
            return exact, False
        words = word_matches(search_term, self.get_search_fields(request), using=queryset.db)
        return queryset.filter(words), False

    # --- the way back ---------------------------------------------------------------------------------------

    def get_preserved_filters(self, request: HttpRequest) -> str:
        """The filters of the list or of the gallery, for pages that lead back there."""
        match = request.resolver_match
        if match is None or match.url_name != url_name(self, "gallery"):
            return super().get_preserved_filters(request)
        filters = request.GET.copy()
        filters["view"] = "gallery"  # so `changelist_view` knows where to go
        return urlencode({"_changelist_filters": filters.urlencode()})

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list; for pages that lead back to the gallery, the gallery."""
        if request.GET.get("view") == "gallery":
            query = request.GET.copy()
            del query["view"]
            return HttpResponseRedirect(f"{admin_url(self, 'gallery')}?{query.urlencode()}")
        title = {} if IS_POPUP_VAR in request.GET else {"title": capfirst(self.opts.verbose_name_plural)}
        may_make = self.has_add_permission(request)
        links = {"add_address": self._add_address(request) if may_make else ""}
        return super().changelist_view(request, {**title, **links, **(extra_context or {})})

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        """None, since the cells have links of their own; in a popup the picture chooses the image."""
        return super().get_list_display_links(request, list_display) if IS_POPUP_VAR in request.GET else None

    def _add_address(self, request: HttpRequest) -> str:
        return admin_url(self, "add", filters=self.get_preserved_filters(request))

    # --- addresses ------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """The admin's own addresses, and those of the previews, the gallery, the usage, making again and progress."""
        wrap = self.admin_site.admin_view
        return [
            path("progress/", wrap(self.progress_view), name=url_name(self, "progress")),
            path("<uuid:image_id>/preview/", wrap(self.preview_view, cacheable=True), name=url_name(self, "preview")),
            path("<uuid:image_id>/describe/", wrap(self.describe_view), name=url_name(self, "describe")),
            path("gallery/", wrap(self.gallery_view), name=url_name(self, "gallery")),
            path("export/", wrap(self.export_view), name=url_name(self, "export")),
            path("usage/", wrap(self.usage_view), name=url_name(self, "usage")),
            path("ledger/", wrap(self.ledger_view), name=url_name(self, "ledger")),
            path("again/", wrap(self.generate_again_view), name=url_name(self, "again")),
            *super().get_urls(),
        ]
